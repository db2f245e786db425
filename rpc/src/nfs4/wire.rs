//! How the types of this module go over the wire: the field trait and the two macros that define a struct or an
//! enumeration once, so that its encoder and its decoder cannot disagree about the order of the fields.

use super::List;
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

/// A value that can be a field of a [`wire_struct`]: like [`Decode`] and [`Encode`], but a plain integer is given the
/// name of its field, so that an error says more than "integer".
pub(crate) trait Field<'a>: Sized {
    /// Reads the field.
    fn get(r: &mut Reader<'a>, what: &'static str) -> Result<Self>;
    /// Writes the field.
    fn put(&self, w: &mut Writer<'_>) -> Result<()>;
}

macro_rules! integer_field {
    ($($ty:ident),*) => {$(
        impl Field<'_> for $ty {
            fn get(r: &mut Reader<'_>, what: &'static str) -> Result<Self> {
                r.$ty(what)
            }
            fn put(&self, w: &mut Writer<'_>) -> Result<()> {
                w.$ty(*self)
            }
        }
    )*};
}

integer_field!(u32, u64, i32, i64, bool);

/// Variable-length opaque data or a string without a limit of its own: the record is the limit.
impl<'a> Field<'a> for &'a [u8] {
    fn get(r: &mut Reader<'a>, what: &'static str) -> Result<Self> {
        r.opaque(what, u32::MAX as usize)
    }
    fn put(&self, w: &mut Writer<'_>) -> Result<()> {
        w.opaque(self)
    }
}

impl<'a, T: Decode<'a> + Encode + Copy> Field<'a> for List<'a, T> {
    fn get(r: &mut Reader<'a>, what: &'static str) -> Result<Self> {
        List::decode_named(r, what)
    }
    fn put(&self, w: &mut Writer<'_>) -> Result<()> {
        self.encode(w)
    }
}

/// Makes a type with [`Decode`] and [`Encode`] a [`Field`].
macro_rules! wire_field {
    ($name:ident<$life:lifetime>) => {
        impl<$life> $crate::nfs4::wire::Field<$life> for $name<$life> {
            fn get(r: &mut $crate::xdr::Reader<$life>, _: &'static str) -> $crate::xdr::Result<Self> {
                $crate::xdr::Decode::decode(r)
            }
            fn put(&self, w: &mut $crate::xdr::Writer<'_>) -> $crate::xdr::Result<()> {
                $crate::xdr::Encode::encode(self, w)
            }
        }
    };
    ($name:ident) => {
        impl $crate::nfs4::wire::Field<'_> for $name {
            fn get(r: &mut $crate::xdr::Reader<'_>, _: &'static str) -> $crate::xdr::Result<Self> {
                $crate::xdr::Decode::decode(r)
            }
            fn put(&self, w: &mut $crate::xdr::Writer<'_>) -> $crate::xdr::Result<()> {
                $crate::xdr::Encode::encode(self, w)
            }
        }
    };
}

/// Defines a struct whose fields stand on the wire in the order of the definition; after each field its name in the
/// RFC, for errors.
macro_rules! wire_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident<$life:lifetime> {
            $($(#[$field_meta:meta])* pub $field:ident: $ty:ty = $what:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name<$life> {
            $($(#[$field_meta])* pub $field: $ty,)*
        }
        impl<$life> $crate::xdr::Decode<$life> for $name<$life> {
            fn decode(r: &mut $crate::xdr::Reader<$life>) -> $crate::xdr::Result<Self> {
                Ok($name { $($field: $crate::nfs4::wire::Field::get(r, $what)?,)* })
            }
        }
        impl $crate::xdr::Encode for $name<'_> {
            fn encode(&self, w: &mut $crate::xdr::Writer<'_>) -> $crate::xdr::Result<()> {
                $($crate::nfs4::wire::Field::put(&self.$field, w)?;)*
                Ok(())
            }
        }
        $crate::nfs4::wire::wire_field!($name<$life>);
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $ty:ty = $what:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }
        impl $crate::xdr::Decode<'_> for $name {
            fn decode(r: &mut $crate::xdr::Reader<'_>) -> $crate::xdr::Result<Self> {
                Ok($name { $($field: $crate::nfs4::wire::Field::get(r, $what)?,)* })
            }
        }
        impl $crate::xdr::Encode for $name {
            fn encode(&self, w: &mut $crate::xdr::Writer<'_>) -> $crate::xdr::Result<()> {
                $($crate::nfs4::wire::Field::put(&self.$field, w)?;)*
                Ok(())
            }
        }
        $crate::nfs4::wire::wire_field!($name);
    };
}

/// Defines an enumeration; after its name the RFC's name, for errors. A value that it does not list is refused.
macro_rules! wire_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident = $what:literal {
            $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$variant_meta])* $variant = $value,)*
        }
        impl $name {
            /// Every value.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
        }
        impl TryFrom<u32> for $name {
            type Error = u32;
            /// The value; on the wire's number being unknown, that number.
            fn try_from(value: u32) -> ::core::result::Result<Self, u32> {
                match value {
                    $($value => Ok($name::$variant),)*
                    other => Err(other),
                }
            }
        }
        impl $crate::xdr::Decode<'_> for $name {
            fn decode(r: &mut $crate::xdr::Reader<'_>) -> $crate::xdr::Result<Self> {
                let offset = r.offset();
                $name::try_from(r.u32($what)?).map_err(|value| $crate::nfs4::wire::undefined($what, offset, value))
            }
        }
        impl $crate::xdr::Encode for $name {
            fn encode(&self, w: &mut $crate::xdr::Writer<'_>) -> $crate::xdr::Result<()> {
                w.u32(*self as u32)
            }
        }
        $crate::nfs4::wire::wire_field!($name);
    };
}

pub(crate) use {wire_enum, wire_field, wire_struct};

/// The error for a discriminant that the protocol does not define, read at `offset`.
pub(crate) fn undefined(what: &'static str, offset: usize, value: u32) -> crate::xdr::XdrError {
    crate::xdr::XdrError { what, offset, kind: crate::xdr::XdrErrorKind::BadValue { value: value.into() } }
}

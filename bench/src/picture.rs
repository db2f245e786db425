//! What all pictures have in common: their font, their colours and the lines behind their curves.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) const INK: RGBColor = RGBColor(40, 44, 52);
pub(crate) const FAINT: RGBColor = RGBColor(225, 228, 232);
pub(crate) const BLUE: RGBColor = RGBColor(31, 111, 180);
pub(crate) const GREEN: RGBColor = RGBColor(34, 139, 94);
const FONT: &str = "sans-serif";

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A picture, as SVG.
pub(crate) fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, String> {
    let mut svg = String::new();
    paint(&mut svg, size, draw).map_err(|e| format!("the plot cannot be drawn: {e}"))?;
    Ok(svg)
}

fn paint(svg: &mut String, size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Drawn {
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    draw(&area)?;
    area.present()?;
    Ok(())
}

/// Text of that size.
pub(crate) fn text(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

/// A small text, of which that point is where it is put.
pub(crate) fn label(h: HPos, v: VPos) -> TextStyle<'static> {
    text(12).pos(Pos::new(h, v))
}

/// The axes and the lines behind a curve.
pub(crate) fn quiet<X, Y>(mesh: &mut MeshStyle<'_, '_, X, Y, SVGBackend<'_>>)
where
    X: Ranged + ValueFormatter<X::ValueType>,
    Y: Ranged + ValueFormatter<Y::ValueType>,
{
    mesh.bold_line_style(FAINT).light_line_style(TRANSPARENT).axis_style(INK.mix(0.6)).label_style(text(12));
}

//! Stable storage: what a restart must not lose, in one database file (`serve --state`).
//!
//! Three tables: the clients that may reclaim after a restart (`grace.rs`), the files (`saved.rs`), and what tells this server
//! and its lives apart. Each change is one transaction, on the disk when it returns: nothing here is to be called on a reactor.

use crate::clients::{Principal, Version};
use crate::keep::{Keep, keep};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use ringback_rpc::nfs4::Verifier4;
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The database, in the directory of `--state`.
const FILE: &str = "ringback.redb";
/// Of what is in the tables.
const FORMAT: u64 = 1;
/// Memory that the database keeps pages in.
const CACHE_BYTES: usize = 16 << 20;
/// By version and name ([`ClientName::key`]): an [`Incarnation`].
const CLIENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("clients");
/// By index: generation and file (`saved.rs`).
const FILES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("files");
const SERVER: TableDefinition<'_, &str, u64> = TableDefinition::new("server");

/// A client's name. Those of minor version 0 are others than those of later ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientName {
    pub(crate) version: Version,
    pub(crate) owner: Arc<[u8]>,
}

impl ClientName {
    fn key(&self) -> Vec<u8> {
        std::iter::once(self.version as u8).chain(self.owner.iter().copied()).collect()
    }

    fn of_key(key: &[u8]) -> Option<Self> {
        let (first, owner) = key.split_first()?;
        let version = [Version::Minor0, Version::Later].into_iter().find(|v| *v as u8 == *first)?;
        Some(ClientName { version, owner: owner.into() })
    }
}

/// One life of a client, and who has shown to be it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pub(crate) verifier: Verifier4,
    pub(crate) principal: Principal,
}

keep! {
    Incarnation { verifier, principal }
}

/// What tells this server from others, and its lives from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Stands in filehandles, and in the server's name.
    pub(crate) volume: u32,
    /// Of the hashes of names.
    pub(crate) seed: u64,
    /// How often it was started.
    pub(crate) lives: u64,
}

/// Where the database is.
#[derive(Debug)]
enum Place {
    Here(Database),
    /// Another process may have it, or give it back: who needs it waits.
    Lent,
    /// It cannot be opened, or is another process's.
    Gone,
}

#[derive(Debug)]
struct Content {
    database: Place,
    /// The clients in it.
    clients: HashMap<ClientName, Incarnation>,
}

/// The database.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    content: Mutex<Content>,
    /// It is lent no more.
    decided: Condvar,
}

impl Store {
    /// Opens the database of a directory, made if it is not there.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(FILE);
        let (database, clients) = open(&path)?;
        // The name of a new file is on the disk as well.
        fs::File::open(directory)?.sync_all()?;
        let content = Mutex::new(Content { database: Place::Here(database), clients });
        Ok(Store { path, content, decided: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is, as soon as it is known who has it.
    fn content(&self) -> MutexGuard<'_, Content> {
        let is_lent = |content: &mut Content| matches!(content.database, Place::Lent);
        self.decided.wait_while(self.lock(), is_lent).unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets another process have it, until [`close`](Store::close) or [`reopen`](Store::reopen).
    pub(crate) fn lend(&self) {
        self.lock().database = Place::Lent;
    }

    /// Another process goes on with it.
    pub(crate) fn close(&self) {
        self.lock().database = Place::Gone;
        self.decided.notify_all();
    }

    /// No other process goes on with it.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        let mut content = self.lock();
        if matches!(content.database, Place::Here(_)) {
            return Ok(());
        }
        let opened = open(&self.path).map(|(database, clients)| {
            *content = Content { database: Place::Here(database), clients };
        });
        if opened.is_err() {
            content.database = Place::Gone;
        }
        self.decided.notify_all();
        opened
    }

    /// Begins another life of the server.
    pub(crate) fn begin_life(&self) -> io::Result<Identity> {
        let content = self.content();
        let transaction = content.database()?.begin_write().map_err(io::Error::other)?;
        let random = RandomState::new();
        let identity = {
            let mut server = transaction.open_table(SERVER).map_err(io::Error::other)?;
            let mut kept = |name, otherwise| -> io::Result<u64> {
                let found = server.get(name).map_err(io::Error::other)?.map(|value| value.value());
                let value = found.unwrap_or(otherwise);
                server.insert(name, value).map_err(io::Error::other)?;
                Ok(value)
            };
            // Neither is zero, which no filehandle of ours has.
            let volume = (random.hash_one(0u8) as u32).max(1);
            let volume = u32::try_from(kept("volume", volume.into())?).map_err(|_| crate::keep::malformed())?;
            let seed = kept("seed", random.hash_one(1u8))?;
            let lives = kept("lives", 0)? + 1;
            server.insert("lives", lives).map_err(io::Error::other)?;
            Identity { volume, seed, lives }
        };
        transaction.commit().map_err(io::Error::other)?;
        Ok(identity)
    }

    /// The clients that may reclaim.
    pub(crate) fn clients(&self) -> HashMap<ClientName, Incarnation> {
        self.content().clients.clone()
    }

    /// A client may reclaim from now on.
    pub(crate) fn put(&self, name: &ClientName, incarnation: Incarnation) -> io::Result<()> {
        let mut content = self.content();
        if content.clients.get(name) == Some(&incarnation) {
            return Ok(());
        }
        let mut value = Vec::new();
        incarnation.save(&mut value)?;
        let transaction = content.database()?.begin_write().map_err(io::Error::other)?;
        {
            let mut table = transaction.open_table(CLIENTS).map_err(io::Error::other)?;
            table.insert(&name.key()[..], &value[..]).map_err(io::Error::other)?;
        }
        transaction.commit().map_err(io::Error::other)?;
        content.clients.insert(name.clone(), incarnation);
        Ok(())
    }

    /// Clients may reclaim no more.
    pub(crate) fn remove<'n>(&self, names: impl IntoIterator<Item = &'n ClientName>) -> io::Result<()> {
        let mut content = self.content();
        let gone: Vec<&ClientName> = names.into_iter().filter(|name| content.clients.contains_key(name)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let transaction = content.database()?.begin_write().map_err(io::Error::other)?;
        {
            let mut table = transaction.open_table(CLIENTS).map_err(io::Error::other)?;
            for name in &gone {
                table.remove(&name.key()[..]).map_err(io::Error::other)?;
            }
        }
        transaction.commit().map_err(io::Error::other)?;
        for name in gone {
            content.clients.remove(name);
        }
        Ok(())
    }

    /// Saves files, by their indices.
    pub(crate) fn put_files(&self, rows: &[(u32, Vec<u8>)]) -> io::Result<()> {
        let content = self.content();
        let transaction = content.database()?.begin_write().map_err(io::Error::other)?;
        {
            let mut files = transaction.open_table(FILES).map_err(io::Error::other)?;
            for (index, row) in rows {
                files.insert(index, &row[..]).map_err(io::Error::other)?;
            }
        }
        transaction.commit().map_err(io::Error::other)
    }

    /// The files, by ascending index.
    pub(crate) fn each_file(&self, mut each: impl FnMut(u32, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let content = self.content();
        let transaction = content.database()?.begin_read().map_err(io::Error::other)?;
        let files = transaction.open_table(FILES).map_err(io::Error::other)?;
        for row in files.iter().map_err(io::Error::other)? {
            let (index, row) = row.map_err(io::Error::other)?;
            each(index.value(), row.value())?;
        }
        Ok(())
    }
}

impl Content {
    fn database(&self) -> io::Result<&Database> {
        match &self.database {
            Place::Here(database) => Ok(database),
            Place::Lent | Place::Gone => Err(io::Error::other("another process goes on with the state")),
        }
    }
}

/// Opens a database, with all its tables, and reads the clients in it.
fn open(path: &Path) -> io::Result<(Database, HashMap<ClientName, Incarnation>)> {
    let database = Builder::new().set_cache_size(CACHE_BYTES).create(path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            io::Error::new(io::ErrorKind::ResourceBusy, "another process has it open")
        }
        error => io::Error::other(error),
    })?;
    let transaction = database.begin_write().map_err(io::Error::other)?;
    let mut clients = HashMap::new();
    {
        let mut server = transaction.open_table(SERVER).map_err(io::Error::other)?;
        let format = server.get("format").map_err(io::Error::other)?.map(|value| value.value());
        if format.is_some_and(|format| format != FORMAT) {
            let why = format!("it has format {}, and this version knows {FORMAT}", format.unwrap_or(0));
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        server.insert("format", FORMAT).map_err(io::Error::other)?;
        transaction.open_table(FILES).map_err(io::Error::other)?;
        let table = transaction.open_table(CLIENTS).map_err(io::Error::other)?;
        for row in table.iter().map_err(io::Error::other)? {
            let (key, value) = row.map_err(io::Error::other)?;
            let name = ClientName::of_key(key.value()).ok_or_else(crate::keep::malformed)?;
            clients.insert(name, Incarnation::load(&mut value.value())?);
        }
    }
    transaction.commit().map_err(io::Error::other)?;
    Ok((database, clients))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// The old process of an upgrade serves again a moment before it has its database back.
    #[test]
    fn who_needs_a_database_that_is_lent_waits_until_it_is_known_whose_it_is() {
        let folder = std::env::temp_dir().join(format!("ringback-lent-{}", std::process::id()));
        let store = Store::open(&folder).unwrap();
        let put = || store.put_files(&[(1, vec![1])]).is_ok();
        for comes_back in [true, false] {
            store.lend();
            let stored = thread::scope(|scope| {
                let putting = scope.spawn(put);
                thread::yield_now();
                if comes_back {
                    store.reopen().unwrap()
                } else {
                    store.close()
                }
                putting.join().unwrap()
            });
            assert_eq!(stored, comes_back);
        }
        store.reopen().unwrap();
        assert!(put());
        drop(store);
        fs::remove_dir_all(folder).unwrap();
    }
}

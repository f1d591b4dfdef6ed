//! The file of a SQLite database: how it is created, and which file it is.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};

/// Which file a path names. A file that replaces another one has another identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    #[cfg(unix)]
    device: u64,
    #[cfg(unix)]
    inode: u64,
}

impl FileIdentity {
    /// The file at this path, now.
    pub(crate) async fn read(path: PathBuf) -> io::Result<Self> {
        let metadata = tokio::task::spawn_blocking(move || std::fs::metadata(path));
        metadata
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
            .map(|metadata| Self::of(&metadata))
    }

    #[cfg(unix)]
    fn of(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Other systems do not allow that an open file is replaced.
    #[cfg(not(unix))]
    fn of(_: &std::fs::Metadata) -> Self {
        Self {}
    }
}

/// Creates the file of these options if it is missing and the options say so. Returns options that create no file. Only its owner can
/// read the new file, and SQLite gives the files beside it (`-wal`, `-shm`) the same mode.
///
/// Connections that are opened later must not create a file: if the database was removed, an empty one would take its place.
pub(super) fn create(options: SqliteConnectOptions) -> io::Result<SqliteConnectOptions> {
    // The options have no getter for this, and sqlx cannot write every file name as a URL.
    let url = options.clone().filename("keys.db").to_url_lossy();
    let creates = url.query_pairs().any(|(name, value)| name == "mode" && value == "rwc");
    match plain_path(&options).filter(|_| creates).map(create_file) {
        None => Ok(options),
        Some(Err(error)) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Some(_) => Ok(options.create_if_missing(false)),
    }
}

/// The path in these options. SQLite also reads a file name as a URI, and takes an empty one for a temporary database.
pub(super) fn plain_path(options: &SqliteConnectOptions) -> Option<&Path> {
    let path = options.get_filename();
    let name = path.as_os_str().as_encoded_bytes();
    (!name.is_empty() && !name.starts_with(b"file:")).then_some(path)
}

fn create_file(path: &Path) -> io::Result<()> {
    /// When a file is closed, the process loses SQLite's locks on it. So no other store may open it before.
    static CREATING: Mutex<()> = Mutex::new(());

    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    options.open(path).map(drop)
}

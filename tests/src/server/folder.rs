//! The folder and the port of a server.
//!
//! A server's folder is named for its port. Beside it is a lock file, which the test process keeps locked. The kernel releases
//! the lock however the process ends. The next process that gets the lock reuses the port, and deletes the files that a killed
//! process has left. So there are never more leftovers than there were servers at one time.
//!
//! The ports are below the ephemeral range of the kernel: while a server is stopped, no other program gets its port by chance.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    env,
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
};

/// The files and the port of a server. Dropped, the files are deleted and the port is released.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    port: u16,
    // Released last.
    _lock: File,
}

impl Folder {
    /// An empty folder in `all`, and the first port that is free.
    pub(crate) fn take(all: &Path, ports: impl IntoIterator<Item = u16>) -> Self {
        let folder = ports.into_iter().find_map(|port| Self::try_take(all, port)).expect("a free port");
        create_anew(&folder.path);
        folder
    }

    fn try_take(all: &Path, port: u16) -> Option<Self> {
        let lock = open(&all.join(format!("{port}.lock")));
        lock.try_lock().ok()?;
        // Fails if another program listens on the port, or a server that has not ended yet.
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(Self { path: all.join(port.to_string()), port, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The log file.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// The folder of this user's servers of one kind, on the disk.
pub(crate) fn on_disk(kind: &str) -> PathBuf {
    all_folders(&env::temp_dir(), kind)
}

/// The same in memory, if there is enough, and otherwise on the disk.
pub(crate) fn in_memory(kind: &str) -> PathBuf {
    if memory_is_ample() { all_folders(Path::new(MEMORY), kind) } else { on_disk(kind) }
}

const MEMORY: &str = "/dev/shm";

/// Whether there is space for many servers. Containers often have 64 MB, which suffices for one.
fn memory_is_ample() -> bool {
    const AMPLE: u64 = 1 << 30;
    let output = Command::new("df").args(["--block-size=1", "--output=avail", MEMORY]).output();
    let free = output.ok().and_then(|output| {
        let table = String::from_utf8(output.stdout).ok()?;
        table.lines().nth(1)?.trim().parse::<u64>().ok()
    });
    free.is_some_and(|free| free >= AMPLE)
}

/// The folder of this user's servers, in a folder that all users share.
fn all_folders(shared: &Path, kind: &str) -> PathBuf {
    let uid = own_uid();
    let all = shared.join(format!("tollgate-{kind}-{uid}"));
    create(&all, 0o755);
    let owner = fs::symlink_metadata(&all).expect("a folder").uid();
    assert_eq!(owner, uid, "{} belongs to another user", all.display());
    all
}

/// The user of the tests.
pub(crate) fn own_uid() -> u32 {
    fs::metadata("/proc/self").expect("Linux").uid()
}

/// An empty folder, which other users cannot read.
pub(crate) fn create_anew(folder: &Path) {
    remove(folder);
    create(folder, 0o700);
}

fn create(folder: &Path, mode: u32) {
    let created = fs::DirBuilder::new().mode(mode).create(folder);
    match created {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => panic!("{}: {error}", folder.display()),
        _ => {}
    }
}

/// A file to append to, which is created if it is missing.
pub(crate) fn open(file: &Path) -> File {
    let opened = File::options().create(true).append(true).open(file);
    opened.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        // Does not panic, since a test may be panicking already.
        Err(error) if error.kind() != io::ErrorKind::NotFound => eprintln!("{}: {error}", folder.display()),
        _ => {}
    }
}

//! Where a server has its files, and on which port it listens.
//!
//! Both are one thing. A server's folder is named for its port, and beside it is a file that the test's process keeps
//! locked. The kernel unlocks it however that process ends; whoever finds it unlocked takes port and folder over, and
//! clears away what a process left that was killed. So never more is left than there once were servers at a time.
//!
//! The ports are below those that the kernel hands out by itself: while a server is stopped, nobody gets its port by
//! chance.
//!
//! Servers that do not wait for the disk are in memory, if there is some: a server has a thousand files, and ext4
//! needs half a second to create as many shortly after it has removed as many, since it looks at each of those before
//! it takes a new one.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    env,
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Durability,
    programs::{Programs, own_uid},
};

/// Two ranges, since the locks of one may be elsewhere than those of the other.
fn ports(durability: Durability) -> Range<u16> {
    match durability {
        Durability::Quick => 15_432..15_932,
        Durability::Durable => 15_932..16_432,
    }
}

/// A server's files and its port, removed and given back when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    port: u16,
    // Unlocked last of all.
    _lock: File,
}

impl Folder {
    /// One with the files of a server that has never run.
    pub(super) fn take(programs: &Programs, durability: Durability) -> Self {
        let disk = all_folders(&env::temp_dir());
        let all = match durability {
            Durability::Quick if memory_is_ample() => &all_folders(Path::new(MEMORY)),
            Durability::Quick | Durability::Durable => &disk,
        };
        let mut ports = ports(durability);
        let folder = ports.find_map(|port| Self::try_take(all, port)).expect("a free port");
        create_anew(&folder.path, programs);
        copy_template(&disk, &folder, programs);
        folder
    }

    fn try_take(all: &Path, port: u16) -> Option<Self> {
        let lock = open(&all.join(format!("{port}.lock")));
        lock.try_lock().ok()?;
        // Whether anybody else listens there, or a server that has not quite ended.
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(Self { path: all.join(port.to_string()), port, _lock: lock })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What the server keeps.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// What the server says.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_shared_memory(&self.data());
        remove(&self.path);
    }
}

const MEMORY: &str = "/dev/shm";

/// Whether there is room for many servers. A container often has 64 MB, which is room for one.
fn memory_is_ample() -> bool {
    const AMPLE: u64 = 1 << 30;
    let output = Command::new("df").args(["--block-size=1", "--output=avail", MEMORY]).output();
    let free = output.ok().and_then(|output| {
        let table = String::from_utf8(output.stdout).ok()?;
        table.lines().nth(1)?.trim().parse::<u64>().ok()
    });
    free.is_some_and(|free| free >= AMPLE)
}

/// Where this user's servers are, in a folder in which others may have theirs.
fn all_folders(shared: &Path) -> PathBuf {
    let uid = own_uid();
    let all = shared.join(format!("tollgate-postgres-{uid}"));
    create(&all, 0o755);
    let owner = fs::symlink_metadata(&all).expect("a folder").uid();
    assert_eq!(owner, uid, "{} is somebody else's", all.display());
    all
}

/// Copies what `initdb` makes, which takes ten times as long to make.
fn copy_template(disk: &Path, folder: &Folder, programs: &Programs) {
    const OPTIONS: [&str; 5] = [
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        // The log begins as one file of this many MB, which would be most of what is copied.
        "--wal-segsize=1",
    ];
    let (template, seal) = (disk.join("template"), disk.join("template.made-by"));
    let made_by = format!("{} {}", programs.identity(), OPTIONS.join(" "));

    let is_made = || fs::read_to_string(&seal).is_ok_and(|text| text == made_by);

    let lock = open(&disk.join("template.lock"));
    loop {
        // Many may copy it at a time. Who comes with another version makes another template when they have.
        lock.lock_shared().expect("a lock");
        if is_made() {
            let mut copy = programs.command("cp");
            run(copy.args(["-R", "--reflink=auto", "--"]).arg(template).arg(folder.data()));
            return;
        }
        lock.unlock().expect("our own lock");
        lock.lock().expect("a lock");
        if !is_made() {
            // Unsealed while it is not whole.
            let _ = fs::remove_file(&seal);
            create_anew(&template, programs);
            run(programs.command(programs.path("initdb")).arg(&template).args(OPTIONS));
            fs::write(&seal, &made_by).expect("a file of our own");
        }
        lock.unlock().expect("our own lock");
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}

/// A killed server leaves a segment of shared memory, by which the next one on its files would know it. Nothing else
/// removes that before the machine ends, and it has room for some thousands.
fn remove_shared_memory(data: &Path) {
    // Only a server that was killed leaves this file; its seventh line is the segment's key and its number.
    let Ok(left) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    if let Some(number) = left.lines().nth(6).and_then(|line| line.split_whitespace().last()) {
        // If it is gone already, so much the better.
        let _ = Command::new("ipcrm").args(["-m", number]).stderr(Stdio::null()).status();
    }
}

/// An empty folder for whoever runs a server.
fn create_anew(folder: &Path, programs: &Programs) {
    remove(folder);
    create(folder, 0o700);
    if let Some(user) = programs.user() {
        let given = std::os::unix::fs::chown(folder, Some(user.uid), Some(user.gid));
        given.expect("root can give a folder away");
    }
}

fn create(folder: &Path, mode: u32) {
    let created = fs::DirBuilder::new().mode(mode).create(folder);
    match created {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => panic!("{}: {error}", folder.display()),
        _ => {}
    }
}

fn open(file: &Path) -> File {
    let opened = File::options().create(true).append(true).open(file);
    opened.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        // Nothing must panic here while a test already does.
        Err(error) if error.kind() != io::ErrorKind::NotFound => eprintln!("{}: {error}", folder.display()),
        _ => {}
    }
}

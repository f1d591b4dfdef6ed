//! The folder and the port of a server.
//!
//! A server's folder is named for its port. Beside it is a lock file, which the test process keeps locked. The kernel releases
//! the lock however the process ends. The next process that gets the lock reuses the port, and deletes the files that a killed
//! process has left. So there are never more leftovers than there were servers at one time.
//!
//! The ports are below the ephemeral range of the kernel: while a server is stopped, no other program gets its port by chance.
//!
//! The files of servers that do not wait for the disk are in memory, if there is enough: a server has a thousand files, and
//! ext4 needs half a second to create them shortly after as many were deleted.
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

/// Two ranges, since their lock files can be in different folders.
fn ports(durability: Durability) -> Range<u16> {
    match durability {
        Durability::Quick => 15_432..15_932,
        Durability::Durable => 15_932..16_432,
    }
}

/// The files and the port of a server. Dropped, the files are deleted and the port is released.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    port: u16,
    // Released last.
    _lock: File,
}

impl Folder {
    /// A folder with the files of a new server.
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
        // Fails if another program listens on the port, or a server that has not ended yet.
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(Self { path: all.join(port.to_string()), port, _lock: lock })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The log file.
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
fn all_folders(shared: &Path) -> PathBuf {
    let uid = own_uid();
    let all = shared.join(format!("tollgate-postgres-{uid}"));
    create(&all, 0o755);
    let owner = fs::symlink_metadata(&all).expect("a folder").uid();
    assert_eq!(owner, uid, "{} belongs to another user", all.display());
    all
}

/// Copies the files of `initdb`, which itself takes ten times as long.
fn copy_template(disk: &Path, folder: &Folder, programs: &Programs) {
    const OPTIONS: [&str; 5] = [
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        // In MB. The write-ahead log begins with one segment, most of the size of the copy.
        "--wal-segsize=1",
    ];
    let (template, seal) = (disk.join("template"), disk.join("template.made-by"));
    let made_by = format!("{} {}", programs.identity(), OPTIONS.join(" "));

    let is_made = || fs::read_to_string(&seal).is_ok_and(|text| text == made_by);

    let lock = open(&disk.join("template.lock"));
    loop {
        // Shared by those who copy. A process with another version waits for them, and replaces the template.
        lock.lock_shared().expect("a lock");
        if is_made() {
            let mut copy = programs.command("cp");
            run(copy.args(["-R", "--reflink=auto", "--"]).arg(template).arg(folder.data()));
            return;
        }
        lock.unlock().expect("our own lock");
        lock.lock().expect("a lock");
        if !is_made() {
            // The seal is removed while the template is incomplete.
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
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
}

/// Removes the shared memory segment that a killed server leaves. The kernel keeps it until a reboot, and has space for some
/// thousands.
fn remove_shared_memory(data: &Path) {
    // Only a killed server leaves this file. Its seventh line has the key and the ID of the segment.
    let Ok(left) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    if let Some(number) = left.lines().nth(6).and_then(|line| line.split_whitespace().last()) {
        // Fails if the segment is gone already.
        let _ = Command::new("ipcrm").args(["-m", number]).stderr(Stdio::null()).status();
    }
}

/// An empty folder that belongs to the user of the server.
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
        // Does not panic, since a test may be panicking already.
        Err(error) if error.kind() != io::ErrorKind::NotFound => eprintln!("{}: {error}", folder.display()),
        _ => {}
    }
}

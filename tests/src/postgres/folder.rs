//! The folder and the port of a server: a copy of what `initdb` makes.
//!
//! The files of servers that do not wait for the disk are in memory, if there is enough: a server has a thousand files, and
//! ext4 needs half a second to create them shortly after as many were deleted.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Durability, programs::Programs};
use crate::server::folder::{self, create_anew, in_memory, on_disk, open};

/// Two ranges, since their lock files can be in different folders.
fn ports(durability: Durability) -> Range<u16> {
    match durability {
        Durability::Quick => 15_432..15_932,
        Durability::Durable => 15_932..16_432,
    }
}

/// The files and the port of a server. Dropped, the files are deleted and the port is released.
#[derive(Debug)]
pub(super) struct Folder(folder::Folder);

impl Folder {
    /// A folder with the files of a new server.
    pub(super) fn take(programs: &Programs, durability: Durability) -> Self {
        let disk = on_disk(KIND);
        let all = match durability {
            Durability::Quick => &in_memory(KIND),
            Durability::Durable => &disk,
        };
        let folder = Self(folder::Folder::take(all, ports(durability)));
        give_to_user(folder.0.path(), programs);
        copy_template(&disk, &folder, programs);
        folder
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port()
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// The log file.
    pub(super) fn log(&self) -> PathBuf {
        self.0.log()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_shared_memory(&self.data());
    }
}

const KIND: &str = "postgres";

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
            create_anew(&template);
            give_to_user(&template, programs);
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

/// Has a folder belong to the user of the server.
fn give_to_user(folder: &Path, programs: &Programs) {
    if let Some(user) = programs.user() {
        let given = std::os::unix::fs::chown(folder, Some(user.uid), Some(user.gid));
        given.expect("root can give a folder away");
    }
}

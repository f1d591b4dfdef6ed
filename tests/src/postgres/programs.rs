//! The programs of PostgreSQL, and the user who runs them.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::server::{folder::own_uid, process::ends_with_its_thread};

/// The programs of one installed version.
#[derive(Debug)]
pub(super) struct Programs {
    folder: PathBuf,
    /// The user who owns and runs servers, if that cannot be the user of the tests.
    user: Option<User>,
}

/// A user of the operating system.
#[derive(Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Programs {
    pub(super) fn find() -> Self {
        let folder = folders().find(|folder| NEEDED.iter().all(|program| folder.join(program).is_file()));
        let folder = folder.expect("PostgreSQL is not installed; `./test test` does that");
        // PostgreSQL refuses to be run by root.
        let user = (own_uid() == 0).then(|| {
            let user = ["postgres", "nobody"].into_iter().find_map(User::find);
            user.unwrap_or_else(|| {
                panic!("root cannot run PostgreSQL, and there is no user `postgres` or `nobody`")
            })
        });
        Self { folder, user }
    }

    /// A command that runs as the right user, and ends with the thread that has started it.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = ends_with_its_thread("QUIT");
        if let Some(user) = &self.user {
            command.arg(format!("--reuid={}", user.uid));
            command.arg(format!("--regid={}", user.gid));
            command.arg("--clear-groups");
        }
        command.arg("--").arg(program);
        // The user may have no access to the folder of the tests.
        command.current_dir("/");
        command
    }

    /// The path of one of the programs.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    pub(super) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// The version and the user: the files of a server work for no others.
    pub(super) fn identity(&self) -> String {
        let output = Command::new(self.path("initdb")).arg("--version").output().expect("initdb runs");
        let version = String::from_utf8_lossy(&output.stdout);
        let user = self.user.as_ref().map_or("", |user| &*user.name);
        format!("{} {user}", version.trim())
    }
}

const NEEDED: [&str; 3] = ["initdb", "postgres", "pg_isready"];

/// The folders to search, in order. Debian does not put the programs on the `PATH`.
fn folders() -> impl Iterator<Item = PathBuf> {
    // Lazily, since `pg_config` is slow.
    let places: [fn() -> Vec<PathBuf>; 3] = [on_path, configured, of_debian];
    places.into_iter().flat_map(|place| place())
}

/// A link on the `PATH` leads to the folder of all programs.
fn on_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = env::split_paths(&path).filter_map(|folder| folder.join("initdb").canonicalize().ok());
    programs.filter_map(|program| program.parent().map(Path::to_owned)).collect()
}

fn configured() -> Vec<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output();
    output.into_iter().map(|output| String::from_utf8_lossy(&output.stdout).trim().into()).collect()
}

fn of_debian() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> =
        versions.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.into_iter().map(|version| format!("/usr/lib/postgresql/{version}/bin").into()).collect()
}

impl User {
    fn find(name: &str) -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").ok()?;
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next()? == name;
            let mut ids = fields.skip(1).map_while(|field| field.parse().ok());
            found.then_some(Self { name: name.to_owned(), uid: ids.next()?, gid: ids.next()? })
        })
    }
}

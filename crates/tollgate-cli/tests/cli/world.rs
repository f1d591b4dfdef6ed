//! A temporary folder with a database, and the program that uses it.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio, id},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};
use tollgate::{
    KeyFormat,
    clock::ManualClock,
    manage::{Actor, IssuedKey, KeyManager, NewKey},
};
use tollgate_sql::SqlKeys;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tollgate");

/// A temporary folder, deleted at the end of a test.
pub(crate) struct World(PathBuf);

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("tollgate_cli_{}_{}", id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.path("keys.db").display())
    }

    /// The program, with only the database URL and a user name in its environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("TOLLGATE_DATABASE", self.url()).env("USER", "ada").args(arguments);
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&self.command(arguments).output().unwrap())
    }

    /// Runs the program on this input.
    pub(crate) fn run_on(&self, input: impl AsRef<[u8]>, arguments: &[&str]) -> Run {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that fails early closes its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        Run::of(&child.wait_with_output().unwrap())
    }

    /// Runs a command that must succeed, and reads its JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let run = self.run(&[&["--json"], arguments].concat());
        assert_eq!(run.code, 0, "{run:?}");
        run.json()
    }

    /// Creates a key, and returns its identifier and its secret.
    pub(crate) fn issue(&self, arguments: &[&str]) -> (String, String) {
        let issued = self.json(&[&["keys", "create"], arguments].concat());
        (text(&issued["id"]), text(&issued["secret"]))
    }

    /// Shows a key.
    pub(crate) fn show(&self, id: &str) -> Value {
        self.json(&["keys", "show", id])
    }

    /// The names in a list, in its order.
    pub(crate) fn names(&self, arguments: &[&str]) -> Vec<String> {
        let listed = self.json(&[&["keys", "list"], arguments].concat());
        listed["items"].as_array().unwrap().iter().map(|item| text(&item["name"])).collect()
    }

    /// The bytes of all files: the database, its write-ahead log and the like.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let files = fs::read_dir(&self.0).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        files.flatten().collect()
    }

    /// Issues a key by the library, at another time.
    pub(crate) async fn issue_at(&self, instant: SystemTime, key: NewKey) -> IssuedKey {
        self.issue_all_at(instant, [key]).await.remove(0)
    }

    pub(crate) async fn issue_all_at(
        &self,
        instant: SystemTime,
        keys: impl IntoIterator<Item = NewKey>,
    ) -> Vec<IssuedKey> {
        let store = SqlKeys::connect(&self.url()).await.unwrap();
        let manager = KeyManager::new(KeyFormat::new("sk").unwrap(), store.clone());
        let manager = manager.with_clock(ManualClock::at(instant));
        let actor = Actor::new("a program");
        let mut issued = Vec::new();
        for key in keys {
            issued.push(manager.issue(key, &actor).await.unwrap());
        }
        store.close().await;
        issued
    }

    /// Runs statements as another program could.
    pub(crate) async fn execute(&self, sql: &'static str) -> SqliteConnection {
        let mut connection = SqliteConnection::connect(&self.url()).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        // `None`: ended by a signal.
        let code = output.status.code().unwrap_or(-1);
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The JSON document, which must be one line.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Asserts that the program has failed with this code, without output, and with one line of error that begins like this.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, beginning: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        assert!(self.err.starts_with(&format!("tollgate: {beginning}")), "{self:?}");
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Whether the bytes contain these.
pub(crate) fn holds(haystack: impl AsRef<[u8]>, needle: impl AsRef<[u8]>) -> bool {
    haystack.as_ref().windows(needle.as_ref().len()).any(|window| window == needle.as_ref())
}

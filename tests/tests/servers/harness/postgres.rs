use std::{fs, io::ErrorKind, net::SocketAddr, path::PathBuf, thread};

use sqlx::{Connection as _, PgConnection};
use tests::{hosts::within, postgres::Postgres};
use tokio::{net::TcpStream, runtime::Runtime};

use super::{ends_with_its_test, lives};

async fn connect(url: &str) -> PgConnection {
    within(PgConnection::connect(url)).await.unwrap()
}

async fn text(connection: &mut PgConnection, query: &'static str) -> String {
    within(sqlx::query_scalar(query).fetch_one(connection)).await.unwrap()
}

async fn count(connection: &mut PgConnection) -> i64 {
    within(sqlx::query_scalar("SELECT count(*) FROM things").fetch_one(connection)).await.unwrap()
}

/// What a server leaves unless it is cleaned up.
struct Traces {
    address: SocketAddr,
    data: PathBuf,
    postmaster: String,
    session: i32,
}

impl Traces {
    async fn of(postgres: &Postgres) -> Self {
        let mut connection = connect(&postgres.url()).await;
        let data = PathBuf::from(text(&mut connection, "SHOW data_directory").await);
        let session = within(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection)).await;
        let postmaster = fs::read_to_string(data.join("postmaster.pid")).unwrap();
        let postmaster = postmaster.lines().next().unwrap().to_owned();
        // A busy session, which would notice only after an hour that the server is gone.
        tokio::spawn(async move { sqlx::query("SELECT pg_sleep(3600)").execute(&mut connection).await });
        Self { address: postgres.address(), data, postmaster, session: session.unwrap() }
    }

    fn processes_are_gone(&self) -> bool {
        !lives(&self.postmaster) && !lives(&self.session.to_string())
    }

    async fn are_gone(&self) -> bool {
        let refused =
            TcpStream::connect(self.address).await.unwrap_err().kind() == ErrorKind::ConnectionRefused;
        refused && self.processes_are_gone() && !self.data.parent().unwrap().exists()
    }
}

#[tokio::test]
async fn a_server_answers_and_its_databases_are_empty_and_separate() {
    let postgres = Postgres::start().await;
    let mut connection = connect(&postgres.url()).await;
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut connection).await.unwrap();
    assert_eq!(one, 1);

    let (one, other) = (postgres.fresh_database().await, postgres.fresh_database().await);
    for url in [&one, &other] {
        let mut connection = connect(url).await;
        sqlx::raw_sql("CREATE TABLE things (); INSERT INTO things DEFAULT VALUES")
            .execute(&mut connection)
            .await
            .unwrap();
        assert_eq!(count(&mut connection).await, 1);
    }
}

#[tokio::test]
async fn servers_have_separate_addresses_and_data() {
    let (one, other) = tokio::join!(Postgres::start(), Postgres::start());
    assert_ne!(one.address(), other.address());
    let (mut one, mut other) = (connect(&one.url()).await, connect(&other.url()).await);
    let folder = "SHOW data_directory";
    assert_ne!(text(&mut one, folder).await, text(&mut other, folder).await);
}

#[tokio::test]
async fn only_a_durable_server_waits_for_the_disk() {
    let settings = "SELECT concat_ws(' ', current_setting('fsync'), current_setting('synchronous_commit'), \
                    current_setting('full_page_writes'))";
    let (quick, durable) = tokio::join!(Postgres::start(), Postgres::start_durable());
    assert_eq!(text(&mut connect(&quick.url()).await, settings).await, "off on on");
    assert_eq!(text(&mut connect(&durable.url()).await, settings).await, "on on on");
}

/// Commits a row before each stop or kill, and checks that every row is there after the restart.
async fn check_that_commits_survive(mut postgres: Postgres, ends: &[End]) {
    let url = postgres.fresh_database().await;
    let mut connection = connect(&url).await;
    sqlx::raw_sql("CREATE TABLE things ()").execute(&mut connection).await.unwrap();
    for (before, end) in (0..).zip(ends) {
        sqlx::raw_sql("INSERT INTO things DEFAULT VALUES").execute(&mut connection).await.unwrap();
        match end {
            End::Stopped => postgres.stop().await,
            End::Killed => postgres.kill().await,
        }
        assert!(PgConnection::connect(&url).await.is_err());

        postgres.restart().await;
        connection = connect(&url).await;
        assert_eq!(count(&mut connection).await, before + 1, "{end:?}");
    }
}

#[derive(Debug)]
enum End {
    Stopped,
    Killed,
}

#[tokio::test]
async fn commits_survive_stops_and_kills() {
    let ends = [End::Killed, End::Stopped, End::Killed, End::Killed];
    check_that_commits_survive(Postgres::start().await, &ends).await;
}

#[tokio::test]
async fn commits_of_a_durable_server_survive_a_kill() {
    check_that_commits_survive(Postgres::start_durable().await, &[End::Killed]).await;
}

#[tokio::test]
async fn a_running_server_can_be_restarted() {
    let mut postgres = Postgres::start().await;
    let mut connection = connect(&postgres.url()).await;
    postgres.restart().await;
    within(sqlx::query("SELECT 1").execute(&mut connection)).await.unwrap_err();
    connect(&postgres.url()).await;
}

#[tokio::test]
async fn a_killed_server_leaves_no_process_and_after_drop_nothing_else() {
    let mut postgres = Postgres::start().await;
    let traces = Traces::of(&postgres).await;
    assert!(lives(&traces.postmaster) && lives(&traces.session.to_string()));
    let segment = fs::read_to_string(traces.data.join("postmaster.pid")).unwrap();
    let segment = segment.lines().nth(6).unwrap().split_whitespace().last().unwrap().to_owned();
    let is_there = || {
        let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
        segments.lines().any(|line| line.split_whitespace().nth(1) == Some(&segment))
    };

    postgres.kill().await;
    assert!(traces.processes_are_gone());
    assert!(is_there(), "a killed server leaves its shared memory");
    drop(postgres);
    assert!(traces.are_gone().await);
    assert!(!is_there());
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let postgres = Postgres::start().await;
    let traces = Traces::of(&postgres).await;
    drop(postgres);
    assert!(traces.are_gone().await);
}

#[tokio::test]
async fn a_server_is_gone_when_its_test_panics() {
    let postgres = Postgres::start().await;
    let traces = Traces::of(&postgres).await;
    let test = tokio::spawn(async move {
        let _postgres = postgres;
        panic!("a failing test");
    });
    assert!(test.await.unwrap_err().is_panic());
    assert!(traces.are_gone().await);
}

/// `PR_SET_PDEATHSIG` takes effect when the thread that started a process ends, not when that thread's process ends.
#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let start = || Runtime::new().unwrap().block_on(Postgres::start());
    let postgres = thread::spawn(start).join().unwrap();
    Runtime::new().unwrap().block_on(async {
        let mut connection = connect(&postgres.url()).await;
        within(sqlx::query("SELECT 1").execute(&mut connection)).await.unwrap();
    });
}

#[tokio::test]
async fn a_server_ends_when_its_test_is_killed() {
    ends_with_its_test("harness::postgres::a_server_ends_when_its_test_is_killed", async || {
        let postgres = Postgres::start().await;
        let Traces { postmaster, session, .. } = Traces::of(&postgres).await;
        (postgres, vec![postmaster, session.to_string()])
    })
    .await;
}

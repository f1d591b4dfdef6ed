//! The recorder behind a stack: its memory, its log events, and its flush at shutdown.

use std::time::Duration;

use tests::suite::{Backend, Inner, Log, at, erase, send, with_key};
use tollgate::{
    Answer, Principal, Tollgate,
    clock::ManualClock,
    denial::Unavailable,
    usage::{
        MemoryUsage, StoredUsage, Usage, UsageBatch, UsageQuery, UsageRecorder, UsageSink as _, UsageStore,
    },
};
use tower::Layer as _;
use tracing::Level;

use crate::directory;

/// Is never there.
struct Down;

impl UsageStore for Down {
    fn add(&self, _batch: UsageBatch) -> Answer<Result<(), Unavailable>> {
        Answer::Now(Err(Unavailable::new("the test has no store")))
    }

    fn usage(&self, _query: &UsageQuery<'_>) -> Answer<Result<StoredUsage, Unavailable>> {
        Answer::Now(Err(Unavailable::new("the test has no store")))
    }
}

#[tokio::test]
async fn counts_allowed_requests_and_flushes_them_at_shutdown() {
    let (clock, store) = (ManualClock::at(at(3_599)), MemoryUsage::new());
    let recorder = UsageRecorder::new(store.clone());
    let flushing = recorder.spawn().unwrap();
    let builder = Tollgate::builder().verify(directory(&Backend::prompt())).usage(recorder.clone());
    let mut stack = erase(builder.clock(clock.clone()).build().unwrap().layer(Inner::new()));
    for second in [3_599, 3_599, 3_600] {
        clock.set(at(second));
        send(&mut stack, with_key("ada")).await;
        send(&mut stack, with_key("unknown")).await;
    }
    flushing.shutdown().await.unwrap();

    let stored = store.usage(&UsageQuery::new("ada", at(0), at(7_200))).await.unwrap();
    let hours: Vec<_> = stored.hours.iter().map(|hour| (hour.hour, hour.requests)).collect();
    assert_eq!(hours, [(at(0), 2), (at(3_600), 1)]);
    assert_eq!(store.last_used_at("ada"), Some(at(3_600)));
    assert_eq!(recorder.usage("ada", at(0), at(7_200)).await.unwrap(), stored.hours);
}

#[tokio::test]
async fn recording_a_known_key_allocates_nothing_even_after_a_flush() {
    let recorder = UsageRecorder::new(MemoryUsage::new());
    let ada = Principal::new("ada");
    let record = || recorder.record(&Usage::new(&ada, at(0)));
    record();
    assert_eq!(allocation_counter::measure(record).count_total, 0);
    recorder.flush().await.unwrap();
    assert_eq!(allocation_counter::measure(record).count_total, 0);
}

#[tokio::test]
async fn memory_stays_bounded_while_the_store_is_down() {
    const CAPACITY: usize = 2_000;
    // What is stated is "about 150", twice: what is counted, and what is on its way.
    const BYTES: usize = 2 * 170;
    let mut recorder = None;
    let runtime = tokio::runtime::Handle::current();
    let measured = std::thread::spawn(move || {
        allocation_counter::measure(|| {
            let recorder = recorder.insert(UsageRecorder::with_capacity(Down, CAPACITY));
            for number in 0..10 * CAPACITY {
                let principal = Principal::new(format!("key_0198c0ffee0198c0ffee_{number:08}"));
                recorder.record(&Usage::new(&principal, at(0)));
                if number % 1_000 == 0 {
                    assert!(runtime.block_on(recorder.flush()).is_err() || number == 0);
                }
            }
        })
    });
    let most = usize::try_from(measured.join().unwrap().bytes_max).unwrap();
    assert!(most < CAPACITY * BYTES, "{most} bytes for {CAPACITY} keys");
}

#[tokio::test]
async fn the_log_shows_once_per_flush_how_much_was_dropped() {
    let log = Log::start();
    let recorder = UsageRecorder::with_capacity(MemoryUsage::new(), 1);
    for key in ["ada", "bob", "cyd", "ada"] {
        recorder.record(&Usage::new(&Principal::new(key), at(0)));
    }
    assert!(log.entries().is_empty(), "a request writes nothing: {log:?}");
    for _ in 0..3 {
        recorder.flush().await.unwrap();
    }
    let entries = log.entries();
    let [entry] = &*entries else { panic!("{entries:#?}") };
    assert_eq!((&*entry.target, entry.level, entry.field("uses")), ("tollgate", Level::WARN, Some("2")));
    assert_eq!(recorder.dropped(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_log_shows_that_the_store_is_down() {
    let log = Log::start();
    let recorder = UsageRecorder::new(Down);
    recorder.record(&Usage::new(&Principal::new("ada"), at(0)));
    let flushing = recorder.spawn_every(Duration::from_secs(10)).unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    let entries = log.entries();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry.level == Level::WARN && &*entry.target == "tollgate"));
    assert_eq!(entries.first().and_then(|entry| entry.field("detail")), Some("the test has no store"));
    assert!(flushing.shutdown().await.is_err());
}

#[tokio::test]
async fn the_log_shows_what_is_lost_with_the_last_clone() {
    let log = Log::start();
    let record = |recorder: &UsageRecorder, key: &str| {
        recorder.record(&Usage::new(&Principal::new(key), at(0)));
    };
    let flushed = UsageRecorder::new(MemoryUsage::new());
    record(&flushed, "ada");
    flushed.flush().await.unwrap();
    drop((UsageRecorder::new(Down), flushed));

    let recorder = UsageRecorder::with_capacity(Down, 2);
    for key in ["ada", "ada", "bob"] {
        record(&recorder, key);
    }
    assert!(recorder.flush().await.is_err());
    record(&recorder, "ada");
    drop(recorder.clone());
    assert!(log.entries().is_empty(), "nothing was lost: {log:?}");

    for key in ["cyd", "dan", "ada", "ada", "ada"] {
        record(&recorder, key);
    }
    drop(recorder);
    let entries = log.entries();
    let [no_room, lost] = &*entries else { panic!("{entries:#?}") };
    assert_eq!(no_room.field("uses"), Some("1"));
    assert_eq!((&*lost.target, lost.level), ("tollgate", Level::WARN));
    assert_eq!((lost.field("uses"), lost.field("unconfirmed")), (Some("5"), Some("3")));
    let said = lost.field("message").unwrap();
    assert!(said.contains("`UsageRecorder::flush`") && said.contains("`UsageFlushing::shutdown`"), "{said}");
}

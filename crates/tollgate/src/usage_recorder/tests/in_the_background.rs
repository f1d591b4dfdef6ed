//! Flushing in a task, by tokio's own paused clock.

use tokio::time::sleep;

use super::*;

const MOMENT: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn flushes_every_ten_seconds() {
    let store = MemoryUsage::new();
    let recorder = UsageRecorder::new(store.clone());
    let flushing = recorder.spawn().unwrap();
    for round in 1..=3 {
        record(&recorder, "ada", hour(1));
        sleep(Duration::from_millis(9_999)).await;
        assert_eq!(stored(&store, "ada").await.len(), usize::from(round > 1));
        sleep(MOMENT * 2).await;
        assert_eq!(stored(&store, "ada").await, [(1, round)]);
    }
    drop(flushing);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_flushed_at_once() {
    let store = MemoryUsage::new();
    let recorder = UsageRecorder::with_capacity(store.clone(), 4);
    let _flushing = recorder.spawn().unwrap();
    sleep(MOMENT).await;
    record(&recorder, "key_1", hour(1));
    record(&recorder, "key_2", hour(1));
    sleep(MOMENT).await;
    assert_eq!(stored(&store, "key_1").await, [(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_asked_once_in_an_interval_however_crowded_it_is() {
    let store = TestStore::default();
    store.all_are(Fate::Vanishes);
    let recorder = UsageRecorder::with_capacity(store.clone(), 2);
    let _flushing = recorder.spawn_every(Duration::from_secs(60)).unwrap();
    record(&recorder, "ada", hour(1));
    sleep(Duration::from_secs(150)).await;
    record(&recorder, "bob", hour(1));
    assert_eq!(store.numbers(), [1, 1, 1]);
    store.all_are(Fate::Arrives);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.numbers(), [1, 1, 1, 1, 2]);
}

#[tokio::test]
async fn a_shutdown_flushes_and_ends() {
    let store = MemoryUsage::new();
    let recorder = UsageRecorder::new(store.clone());
    let flushing = recorder.spawn().unwrap();
    record(&recorder, "ada", hour(1));
    flushing.shutdown().await.unwrap();
    assert_eq!(stored(&store, "ada").await, [(1, 1)]);
    ends(recorder).await;
}

#[tokio::test]
async fn ends_when_it_is_dropped_and_leaves_the_rest_to_the_recorder() {
    let store = MemoryUsage::new();
    let recorder = UsageRecorder::new(store.clone());
    record(&recorder, "ada", hour(1));
    drop(recorder.spawn().unwrap());
    recorder.flush().await.unwrap();
    assert_eq!(stored(&store, "ada").await, [(1, 1)]);
    ends(recorder).await;
}

/// A task that has ended holds its recorder no more.
async fn ends(recorder: UsageRecorder) {
    while Arc::strong_count(&recorder.0) > 1 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn says_where_it_can_be_spawned() {
    let error = UsageRecorder::new(MemoryUsage::new()).spawn().unwrap_err();
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}

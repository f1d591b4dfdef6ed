//! Flushing in a task, with tokio's paused clock.

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
async fn a_half_full_recorder_is_flushed_at_once() {
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
async fn an_unavailable_store_is_retried_once_per_interval_even_if_half_full() {
    let store = TestStore::default();
    store.all_are(Outcome::Lost);
    let recorder = UsageRecorder::with_capacity(store.clone(), 2);
    let _flushing = recorder.spawn_every(Duration::from_secs(60)).unwrap();
    record(&recorder, "ada", hour(1));
    sleep(Duration::from_secs(150)).await;
    record(&recorder, "bob", hour(1));
    assert_eq!(store.numbers(), [1, 1, 1]);
    store.all_are(Outcome::Stored);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.numbers(), [1, 1, 1, 1, 2]);
}

#[tokio::test]
async fn a_shutdown_flushes_and_stops_the_task() {
    let store = MemoryUsage::new();
    let recorder = UsageRecorder::new(store.clone());
    let flushing = recorder.spawn().unwrap();
    record(&recorder, "ada", hour(1));
    flushing.shutdown().await.unwrap();
    assert_eq!(stored(&store, "ada").await, [(1, 1)]);
    ends(recorder).await;
}

#[tokio::test]
async fn stops_when_dropped_and_keeps_unflushed_usage_in_the_recorder() {
    let store = MemoryUsage::new();
    let recorder = UsageRecorder::new(store.clone());
    record(&recorder, "ada", hour(1));
    drop(recorder.spawn().unwrap());
    recorder.flush().await.unwrap();
    assert_eq!(stored(&store, "ada").await, [(1, 1)]);
    ends(recorder).await;
}

/// Waits until the task has ended: it then no longer holds the recorder.
async fn ends(recorder: UsageRecorder) {
    while Arc::strong_count(&recorder.0) > 1 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn spawning_outside_a_runtime_is_an_error() {
    let error = UsageRecorder::new(MemoryUsage::new()).spawn().unwrap_err();
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}

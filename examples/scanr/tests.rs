//! What cannot be seen from outside: no route is open that is not meant to be.

use tollgate_testing::coverage::Coverage;

use super::*;

#[tokio::test]
async fn only_the_clock_needs_no_credential() {
    let format = KeyFormat::new("sk").unwrap();
    let store = tokens::store().await.unwrap();
    let manager = tokens::manager(format.clone(), store.clone(), ServiceClock::Running).unwrap();
    let (sessions, _) = account::sign_in().unwrap();
    let usage = UsageRecorder::new(store.clone());
    let app = app(format, store, manager, sessions, usage, ServiceClock::Running).unwrap();

    let (service, routes) = app.into_parts();
    Coverage::of(service, routes).await.assert_only_open(["POST /_demo/clock"]);
}

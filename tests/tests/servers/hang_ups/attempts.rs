//! An attempt that is abandoned while its credential is being verified is a failed one.

use std::time::Duration;

use http::StatusCode;
use tests::{
    hosts::{Connection, within},
    suite::{Backend, Directory, Latch},
};
use tollgate::{AttemptLimitLayer, ClientAddress, PerWindow as _, Principal};
use tollgate_axum::peer_address;

use super::{How, flood::Caller, serve};

/// Regression: attempts were counted by their responses, so a caller that never waited for one could go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_hangs_up_too_often_is_refused() {
    for how in How::BOTH {
        let (backend, latch) = (Backend::prompt(), Latch::shut());
        let verifier = Directory::new(&backend).with("good", Principal::new("ada"));
        let attempts = AttemptLimitLayer::new(20.per_hour(), ClientAddress::of_peer(peer_address));
        let server = serve(verifier, Some(attempts)).await;
        let mut patient = Connection::http1(server).await;
        assert_eq!(patient.get("/", Some("good")).await.status(), StatusCode::OK);

        backend.turn_into(&Backend::slow(&latch));
        let mut caller = Caller::new(how, server);
        for number in 0..40 {
            caller.hang_up(&format!("guess-{number}"), Duration::from_millis(5)).await;
        }
        latch.open();
        // The server may learn of the last hang-ups a moment later.
        let refused = within(async {
            loop {
                let status = patient.get("/", Some("good")).await.status();
                if status != StatusCode::OK {
                    break status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert_eq!(refused.await, StatusCode::TOO_MANY_REQUESTS, "{how:?}");
    }
}

//! Debug output contains no secret.

use tests::suite::{Backend, Case, GOOD, Latch, World};

pub(crate) async fn debug_output_has_no_secret(case: &Case) {
    let arrived = case.arrived().await;
    for backend in [Backend::prompt(), Backend::slow(&Latch::shut()), Backend::down()] {
        let prints = (case.debug)(&World::with_backend(backend), arrived.clone());
        let [layer, service, future] = &prints;
        assert!(layer.len() > 10 && service.contains("Inner") && future.contains("Future"), "{prints:?}");
        for print in &prints {
            assert!(!print.contains(GOOD) && !print.contains("s3cr3t"), "{print}");
        }
    }
}

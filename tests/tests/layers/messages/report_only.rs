//! Messages in report-only mode: of the layer, of the whole stack, and of the layers that it is given.

use tests::suite::{FaultyCredits, Log};
use tollgate::{CreditsLayer, VerifyLayer, layers::ReportOnly, store::EndReason};

use super::*;

#[tokio::test]
async fn what_would_be_refused_is_logged_and_counted_and_passes() {
    let report = ReportOnly::new();
    let credits = FaultyCredits::granted("acme", 2);
    let layer = MessageLayer::from_rate_limit(1.per_day())
        .with_credits(CreditsLayer::new(credits.clone(), 1), 1)
        .with_report_only(&report);
    let meter = Api::charging(layer).open("ada").await;
    let log = Log::start();
    assert_eq!((kind(meter.charge(1).await), report.refusals()), (None, 0));
    // By the limits. As in the stack, the credits are charged all the same.
    assert_eq!((kind(meter.charge(1).await), report.refusals()), (None, 1));
    assert_eq!(credits.account("acme"), (0, 0, 0));
    // By both, which is reported once.
    assert_eq!((kind(meter.charge(1).await), report.refusals()), (None, 2));
    let refusals = log.refusals();
    assert_eq!(refusals.len(), 2, "{refusals:#?}");
    for entry in &refusals {
        assert_eq!(entry.field("report_only"), Some("true"));
        assert_eq!((entry.field("layer"), entry.field("status")), (Some("MessageLayer"), Some("429")));
    }
}

#[tokio::test]
async fn a_given_layer_in_report_only_mode_stays_so_for_messages() {
    let report = ReportOnly::new();
    let limits = RateLimitLayer::new(1.per_day()).with_report_only(&report);
    let credits = FaultyCredits::granted("acme", 2);
    let layer = MessageLayer::from_credits(CreditsLayer::new(credits, 1), 1).with_rate_limit(limits);
    let meter = Api::charging(layer).open("ada").await;
    assert_eq!((kind(meter.charge(1).await), report.refusals()), (None, 0));
    assert_eq!((kind(meter.charge(1).await), report.refusals()), (None, 1));
    assert_eq!(kind(meter.charge(1).await), Some(DenialKind::CreditsExhausted), "the credits are enforced");

    // Its own count comes before that of the whole layer.
    let (own, whole) = (ReportOnly::new(), ReportOnly::new());
    let limits = RateLimitLayer::new(1.per_day()).with_report_only(&own);
    let meter =
        Api::charging(MessageLayer::from_rate_limit(limits).with_report_only(&whole)).open("ada").await;
    assert_eq!((kind(meter.charge(2).await), own.refusals(), whole.refusals()), (None, 1, 0));

    let report = ReportOnly::new();
    let credits = CreditsLayer::new(FaultyCredits::default(), 1).with_report_only(&report);
    let layer = MessageLayer::from_credits(credits, 1).with_rate_limit(1.per_day());
    let meter = Api::charging(layer).open("ada").await;
    assert_eq!((kind(meter.charge(1).await), report.refusals()), (None, 1));
    assert_eq!(kind(meter.charge(1).await), Some(DenialKind::RateLimited), "the limits are enforced");
}

#[tokio::test]
async fn an_ended_key_passes_only_if_the_verifier_only_reports_too() {
    let layer = || MessageLayer::from_rate_limit(10.per_day());
    let whole = ReportOnly::new();
    let api = Api::new(|builder| builder.messages(layer()).report_only(&whole));
    let meter = api.open("ada").await;
    api.end.end(EndReason::Revoked);
    assert_eq!((kind(meter.charge(1).await), whole.refusals()), (None, 1));

    let report = ReportOnly::new();
    let api = Api::charging(layer().with_report_only(&report));
    let meter = api.open("ada").await;
    api.end.end(EndReason::Revoked);
    assert_eq!((kind(meter.charge(1).await), report.refusals()), (Some(DenialKind::KeyRevoked), 0));

    let end = EndSignal::new();
    let directory = Directory::default().with("ada", Principal::new("ada").with_end_signal(end.clone()));
    let tollgate = Tollgate::builder()
        .verify(VerifyLayer::new(directory).with_report_only(&report))
        .messages(layer())
        .build()
        .unwrap();
    let inner = Inner::new();
    let api = Api { stack: erase(tollgate.layer(inner.clone())), inner, clock: World::new().clock, end };
    let meter = api.open("ada").await;
    api.end.end(EndReason::Revoked);
    assert_eq!((kind(meter.charge(1).await), report.refusals()), (Some(DenialKind::KeyRevoked), 0));
}

#[tokio::test]
async fn a_caller_whose_refusal_was_waived_has_a_meter_that_charges_nothing() {
    let report = ReportOnly::new();
    let api =
        Api::new(|builder| builder.messages(MessageLayer::from_rate_limit(1.per_day())).report_only(&report));
    let meter = api.open("unknown").await;
    assert_eq!(kind(meter.charge(5).await), None);
    assert_eq!(report.refusals(), 1, "the request's refusal, which is reported once");
}

//! Properties that hold for every layer and for the built stack.

mod readiness;
mod report_only;
mod secrecy;
mod verdict;
mod wait;

use tests::suite::Case;

/// Runs every property for every layer, each as a separate test.
macro_rules! for_every_layer {
    ($($module:ident::$property:ident,)*) => {
        for_every_layer!(@layer request_id REQUEST_ID $($module::$property,)*);
        for_every_layer!(@layer attempt_limit ATTEMPT_LIMIT $($module::$property,)*);
        for_every_layer!(@layer credential CREDENTIAL $($module::$property,)*);
        for_every_layer!(@layer verify VERIFY $($module::$property,)*);
        for_every_layer!(@layer plan PLAN $($module::$property,)*);
        for_every_layer!(@layer in_flight_limit IN_FLIGHT_LIMIT $($module::$property,)*);
        for_every_layer!(@layer rate_limit RATE_LIMIT $($module::$property,)*);
        for_every_layer!(@layer entitlement ENTITLEMENT $($module::$property,)*);
        for_every_layer!(@layer scope SCOPE $($module::$property,)*);
        for_every_layer!(@layer scope_map SCOPE_MAP $($module::$property,)*);
        for_every_layer!(@layer guard GUARD $($module::$property,)*);
        for_every_layer!(@layer credits CREDITS $($module::$property,)*);
        for_every_layer!(@layer usage USAGE $($module::$property,)*);
        for_every_layer!(@layer messages MESSAGES $($module::$property,)*);
        for_every_layer!(@layer stream_end STREAM_END $($module::$property,)*);
        for_every_layer!(@layer tollgate TOLLGATE $($module::$property,)*);
        for_every_layer!(@layer tollgate_refusing_in_the_middle TOLLGATE_MIDST $($module::$property,)*);
        for_every_layer!(@layer tollgate_refusing_first TOLLGATE_FIRST $($module::$property,)*);
    };
    (@layer $layer:ident $case:ident $($module:ident::$property:ident,)*) => {
        mod $layer {
            $(#[tokio::test]
            async fn $property() {
                super::$module::$property(&super::Case::$case).await;
            })*
        }
    };
}

for_every_layer! {
    verdict::allows,
    verdict::refuses,
    verdict::logs_a_refusal_once,
    verdict::only_reports_in_report_only_mode,
    verdict::fails_closed_when_its_backend_is_down,
    verdict::answers_500_without_the_layer_that_it_needs,
    verdict::passes_inner_errors_untouched,
    verdict::clones_share_state,
    readiness::calls_only_ready_services,
    readiness::a_refused_and_idle_service_holds_no_permit,
    readiness::calls_a_ready_service_once_after_a_wait,
    readiness::a_refusal_after_a_wait_calls_nothing_and_holds_no_permit,
    readiness::dropping_a_call_half_way_leaks_no_permit,
    secrecy::debug_output_has_no_secret,
}

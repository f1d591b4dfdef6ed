//! What cannot be seen from outside: no route is open that is not meant to be.

use std::net::SocketAddr;

use axum::extract::connect_info::MockConnectInfo;
use tollgate_testing::coverage::Coverage;

use super::*;

#[tokio::test]
async fn only_signing_in_and_the_clock_need_no_token() {
    let database = database::open().await.unwrap();
    let tokens = Tokens::new(ServiceClock::Running).unwrap();
    let app = App {
        accounts: Accounts::new(database.clone()),
        sessions: Sessions::new(database, tokens.clone(), ServiceClock::Running),
        passwords: Passwords::new().unwrap(),
        guesses: Guesses::new(),
        limits: limits::of_accounts().unwrap(),
        inventory: Inventory::default(),
        clock: ServiceClock::Running,
    };
    let (service, routes) = service(app, &tokens).unwrap().into_parts();
    let service = service.layer(MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 4711))));
    Coverage::of(service, routes).await.assert_only_open([
        "POST /api/v1/auth/register",
        "POST /api/v1/auth/login",
        "POST /api/v1/auth/token/refresh",
        "POST /_demo/clock",
    ]);
}

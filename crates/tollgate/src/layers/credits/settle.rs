//! Asks the backend: reserves within a deadline, and repeats a settlement until the backend confirms it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tollgate_core::{
    answer::{Answer, Pending},
    credits::{
        Credits, Excess, Idempotency, Reservation, ReservationId, ReserveRequest, Reserved, SettleAction,
        SettleRequest, Settlement,
    },
    denial::Unavailable,
};

use super::{CreditMeter, open_reservation::OpenReservation};
use crate::{engine::RequestClock, respond::ResponseHead};

/// How long a settlement is repeated, and how long the task of a reservation waits for an answer whose request is gone.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The pause before the second try of a settlement. Each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The backend, and how a layer uses it.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) credits: Arc<dyn Credits>,
    pub(super) excess: Excess,
    pub(super) reservation_time: Duration,
    pub(super) deadline: Duration,
    pub(super) actual: Option<Arc<ActualCost>>,
    // The number of tasks whose settlement is not confirmed.
    pub(super) unconfirmed: Arc<watch::Sender<usize>>,
    // The places of the tasks that reserve credits for messages.
    pub(super) message_places: Arc<Semaphore>,
}

/// The actual cost by the response's head. `None`: the head does not say it.
pub(super) type ActualCost = dyn for<'r> Fn(ResponseHead<'r>) -> Option<u64> + Send + Sync;

/// The account that pays for a request, and its backend.
pub(super) struct PayingAccount {
    backend: Arc<Backend>,
    name: Box<str>,
    clock: RequestClock,
}

/// A backend's answer to the reservation of a request.
pub(super) enum Answered {
    /// Credits are held, and so many others are available.
    Held(Arc<OpenReservation>, u64),
    /// Nothing is held.
    Other(Reserved),
}

impl PayingAccount {
    pub(super) fn new(backend: &Arc<Backend>, name: &str, clock: RequestClock) -> Arc<Self> {
        Arc::new(Self { backend: Arc::clone(backend), name: name.into(), clock })
    }

    /// Reserves the estimated cost of a request. A backend that answers later is asked in a task of its own, which releases what was
    /// reserved if the request is gone by then. Until then the task holds `places`, so that they bound the number of tasks.
    pub(super) fn reserve<P: Send + 'static>(
        self: &Arc<Self>,
        estimate: u64,
        idempotency: Option<Idempotency<'_>>,
        ends_with_head: bool,
        now: SystemTime,
        places: P,
    ) -> Answer<Result<Answered, Unavailable>> {
        let Backend { reservation_time, deadline, .. } = *self.backend;
        let expires_at = now.checked_add(reservation_time).unwrap_or(now);
        let mut request = ReserveRequest::new(&self.name, estimate, expires_at, now);
        request.idempotency = idempotency;
        let payer = Arc::clone(self);
        let answer = self
            .backend
            .credits
            .reserve(&request)
            .map(move |reserved| Ok(payer.opened(reserved?, ends_with_head)));
        match answer {
            Answer::Now(answered) => Answer::Now(answered),
            Answer::Later(pending) => match Handle::try_current() {
                Ok(runtime) => Answer::Later(in_task(&runtime, pending, deadline, places)),
                Err(_) => Answer::Now(Err(Unavailable::new(
                    "CreditsLayer was used outside a tokio runtime, with a backend that answers later: call it from a task on tokio",
                ))),
            },
        }
    }

    /// A place for a task that reserves credits for messages; `None` if all are taken.
    pub(super) fn message_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.backend.message_places).try_acquire_owned().ok()
    }

    fn opened(self: Arc<Self>, reserved: Reserved, ends_with_head: bool) -> Answered {
        match reserved {
            Reserved::Held(Reservation { id, amount, available, .. }) => {
                let meter = CreditMeter::new(id, amount);
                Answered::Held(Arc::new(OpenReservation::new(self, id, meter, ends_with_head)), available)
            }
            other => Answered::Other(other),
        }
    }

    /// The actual cost that the response's head shows.
    pub(super) fn actual(&self, head: ResponseHead<'_>) -> Option<u64> {
        self.backend.actual.as_ref()?(head)
    }

    pub(super) fn commit(&self, actual: u64) -> SettleAction {
        SettleAction::Commit { actual, excess: self.backend.excess }
    }

    /// Settles a reservation. If the backend does not confirm it at once, a task does the rest, and the first try is returned.
    pub(super) fn settle(self: &Arc<Self>, id: ReservationId, action: SettleAction) -> Option<FirstTry> {
        let settling = Settling { payer: Arc::clone(self), id, action, is_over: false };
        match settling.ask() {
            Answer::Now(Ok(settlement)) => settling.confirmed(settlement),
            unconfirmed => match Handle::try_current() {
                Ok(runtime) => {
                    let counted = Unconfirmed::new(&self.backend.unconfirmed);
                    let (tried, first_try) = oneshot::channel();
                    drop(runtime.spawn(settling.until_confirmed(unconfirmed, tried, counted)));
                    return Some(FirstTry(first_try));
                }
                Err(_) => {
                    settling.given_up(&Unavailable::new("the response was dropped outside a tokio runtime"));
                }
            },
        }
        None
    }
}

/// The first try to settle a reservation: ready when it has succeeded or failed, after the deadline of a try at most. The end of a
/// response waits for it, so that its caller finds the credits settled.
pub(crate) struct FirstTry(oneshot::Receiver<()>);

impl Future for FirstTry {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

/// Waits for an answer in a task, which goes on if the returned future is dropped.
fn in_task<P: Send + 'static>(
    runtime: &Handle,
    pending: Pending<Result<Answered, Unavailable>>,
    deadline: Duration,
    places: P,
) -> Pending<Result<Answered, Unavailable>> {
    let (sender, receiver) = oneshot::channel();
    runtime.spawn(async move {
        if let Ok(answered) = timeout(LONGEST_WAIT.max(deadline), pending).await {
            // If the request is gone, the answer is dropped here, which releases what it holds.
            let _ = sender.send(answered);
        }
        drop(places);
    });
    Box::pin(async move {
        match timeout(deadline, receiver).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => Err(Unavailable::new(
                "a reservation ended without an answer: its backend has panicked, or the tokio runtime was shut down",
            )),
            Err(_) => Err(no_answer(deadline)),
        }
    })
}

fn no_answer(deadline: Duration) -> Unavailable {
    Unavailable::new(format!("no answer from the backend of credits within {deadline:?}"))
}

/// Counts a task whose settlement is not confirmed.
struct Unconfirmed(Arc<watch::Sender<usize>>);

impl Unconfirmed {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A settlement that may have to be repeated. The backend charges it once, however often it is asked.
struct Settling {
    payer: Arc<PayingAccount>,
    id: ReservationId,
    action: SettleAction,
    // Whether it was confirmed or given up.
    is_over: bool,
}

impl Settling {
    fn ask(&self) -> Answer<Result<Settlement, Unavailable>> {
        let PayingAccount { backend, name, clock } = &*self.payer;
        backend.credits.settle(&SettleRequest::new(name, self.id, self.action, clock.now()))
    }

    async fn until_confirmed(
        self,
        first: Answer<Result<Settlement, Unavailable>>,
        tried: oneshot::Sender<()>,
        _counted: Unconfirmed,
    ) {
        let deadline = self.payer.backend.deadline;
        let until = Instant::now() + LONGEST_WAIT;
        let mut answer = first;
        let mut pause = FIRST_PAUSE;
        let mut tried = Some(tried);
        loop {
            let error = match timeout(deadline, answer).await {
                Ok(Ok(settlement)) => return self.confirmed(settlement),
                Ok(Err(error)) => error,
                Err(_) => no_answer(deadline),
            };
            // The response waits no longer.
            drop(tried.take());
            if Instant::now() + pause > until {
                return self.given_up(&error);
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
            answer = self.ask();
        }
    }

    /// The backend has confirmed the settlement. Logs what it did not charge.
    fn confirmed(mut self, settlement: Settlement) {
        self.is_over = true;
        let Settlement { charged, uncharged, .. } = settlement;
        if uncharged > 0 {
            tracing::info!(
                target: "tollgate",
                account = &*self.payer.name,
                reservation = %self.id,
                charged,
                uncharged,
                "credits not charged"
            );
        }
    }

    fn given_up(mut self, error: &Unavailable) {
        self.is_over = true;
        self.log_failure(error);
    }

    /// Logs that a settlement was given up: its reservation expires, and its cost is not charged.
    fn log_failure(&self, error: &Unavailable) {
        let actual = match self.action {
            SettleAction::Commit { actual, .. } => actual,
            _ => 0,
        };
        tracing::warn!(
            target: "tollgate",
            account = &*self.payer.name,
            reservation = %self.id,
            actual,
            detail = %format_args!("{error:#}"),
            "reservation not settled"
        );
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if !self.is_over {
            self.log_failure(&Unavailable::new(
                "the settlement ended without an answer: its backend has panicked, or the tokio runtime was shut down",
            ));
        }
    }
}

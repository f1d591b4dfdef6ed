//! A model of an account in which each credit is a token with a place. It shares no code with any store.

use std::{collections::BTreeMap, sync::LazyLock};

use tollgate::credits::{Excess, Refill, ReservationId, SettleAction};

/// How long a settled or expired reservation is remembered, in seconds.
const REMEMBERED: u64 = 24 * 3_600;

/// The holder of tokens that are about to return.
const LEAVING: ReservationId = ReservationId::from_number(0);

#[derive(Default)]
pub(super) struct Model {
    pub(super) grants: BTreeMap<String, ModelGrant>,
    pub(super) reservations: BTreeMap<ReservationId, ModelReservation>,
    tokens: Vec<Token>,
    pub(super) owed: u64,
    /// All tokens ever made.
    pub(super) made: u64,
    /// The tokens that were charged, or have paid a debt.
    pub(super) spent: u64,
    /// The tokens that have lapsed, or were withdrawn.
    pub(super) gone: u64,
    /// What all settlements have charged.
    pub(super) charged: u64,
}

/// All instants are in seconds since 1970.
#[derive(Clone)]
pub(super) struct ModelGrant {
    pub(super) amount: u64,
    pub(super) priority: i32,
    pub(super) granted_at: u64,
    pub(super) expires_at: Option<u64>,
    pub(super) refill: Option<Refill>,
    period: u64,
    pub(super) has_ended: bool,
}

#[derive(Clone)]
struct Token {
    grant: String,
    period: u64,
    holder: Option<ReservationId>,
}

pub(super) struct ModelReservation {
    amount: u64,
    expires_at: u64,
    key: Option<(String, String)>,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Held,
    Expired,
    Settled { at: u64, outcome: (u64, u64), is_charged: bool },
}

#[derive(Debug, PartialEq)]
pub(super) enum Expected {
    Held { available: u64 },
    Insufficient { available: u64 },
    Repeated { id: ReservationId, charged: u64, uncharged: u64 },
    InProgress,
    KeyReused,
}

impl Model {
    pub(super) fn available(&self) -> u64 {
        self.tokens.iter().filter(|token| token.holder.is_none()).count() as u64
    }

    pub(super) fn reserved(&self) -> u64 {
        self.tokens.len() as u64 - self.available()
    }

    /// What is available of the grants that have not ended, in the order in which they are spent.
    pub(super) fn live(&self) -> Vec<(String, u64)> {
        let mut ids: Vec<_> =
            self.grants.iter().filter(|(_, grant)| !grant.has_ended).map(|(id, _)| id).collect();
        ids.sort_by_key(|id| self.order_of(id));
        let is_left = |token: &&Token, id: &str| token.holder.is_none() && token.grant == id;
        let left = |id: &str| self.tokens.iter().filter(|token| is_left(token, id)).count() as u64;
        ids.into_iter().map(|id| (id.clone(), left(id))).collect()
    }

    /// Whether a reservation or a grant has expired since the last use.
    pub(super) fn is_due(&self, now: u64) -> bool {
        let is_ending =
            |grant: &ModelGrant| !grant.has_ended && grant.expires_at.is_some_and(|end| end <= now);
        let is_due = |held: &ModelReservation| held.state == State::Held && held.expires_at <= now;
        self.grants.values().any(is_ending) || self.reservations.values().any(is_due)
    }

    /// What happens at any use of the account.
    pub(super) fn at(&mut self, now: u64) {
        let ids: Vec<_> = self.grants.keys().cloned().collect();
        for id in ids {
            let grant = self.grants.get_mut(&id).unwrap();
            let begins = grant.refill.map_or(0, |refill| period_of(refill, now));
            if grant.has_ended {
                continue;
            }
            if grant.expires_at.is_some_and(|end| end <= now) {
                grant.has_ended = true;
                self.remove_available(&id);
            } else if begins > grant.period {
                grant.period = begins;
                let amount = grant.amount;
                self.remove_available(&id);
                self.make(&id, amount);
            }
        }
        let is_due = |held: &ModelReservation| held.state == State::Held && held.expires_at <= now;
        let due: Vec<_> =
            self.reservations.iter().filter(|(_, held)| is_due(held)).map(|(id, _)| *id).collect();
        for id in due {
            self.put_back(id);
            self.reservations.get_mut(&id).unwrap().state = State::Expired;
        }
        self.repay();
    }

    /// Adds a grant; nothing happens if there is one with this identifier.
    pub(super) fn grant(&mut self, id: &str, grant: ModelGrant) {
        self.at(grant.granted_at);
        if self.grants.contains_key(id) {
            return;
        }
        let amount = grant.amount;
        self.grants.insert(id.to_owned(), grant);
        self.make(id, amount);
        self.repay();
    }

    pub(super) fn withdraw(&mut self, id: &str, now: u64) {
        self.at(now);
        self.remove_available(id);
        self.grants.get_mut(id).unwrap().has_ended = true;
    }

    /// What a reservation is answered, and by which reservation the idempotency key is used.
    pub(super) fn expect(&mut self, amount: u64, key: Option<&(String, String)>, now: u64) -> Expected {
        self.at(now);
        if let Some((key, request)) = key
            && let Some((id, earlier)) = self.user_of(key)
            && earlier.is_remembered(now)
        {
            let same_request = earlier.key.as_ref().is_some_and(|(_, of_earlier)| of_earlier == request);
            match earlier.state {
                _ if !same_request => return Expected::KeyReused,
                State::Held => return Expected::InProgress,
                State::Settled { outcome: (charged, uncharged), is_charged: true, .. } => {
                    return Expected::Repeated { id, charged, uncharged };
                }
                State::Expired | State::Settled { .. } => {}
            }
        }
        let available = self.available();
        if self.owed > 0 || available < amount {
            return Expected::Insufficient { available };
        }
        Expected::Held { available: available - amount }
    }

    pub(super) fn hold(
        &mut self,
        id: ReservationId,
        amount: u64,
        expires_at: u64,
        key: Option<(String, String)>,
    ) {
        if let Some((key, _)) = &key
            && let Some((earlier, _)) = self.user_of(key)
        {
            self.reservations.get_mut(&earlier).unwrap().key = None;
        }
        for _ in 0..amount {
            let next = self.next_available().unwrap();
            let mut token = self.tokens.remove(next);
            token.holder = Some(id);
            // At the end, so that the tokens of a reservation are charged in the order in which they were taken.
            self.tokens.push(token);
        }
        self.reservations.insert(id, ModelReservation { amount, expires_at, key, state: State::Held });
    }

    /// Returns what is charged and what is not.
    pub(super) fn settle(&mut self, id: ReservationId, action: SettleAction, now: u64) -> (u64, u64) {
        self.at(now);
        let actual = if let SettleAction::Commit { actual, .. } = action { actual } else { 0 };
        let found = self.reservations.get(&id).filter(|found| found.is_remembered(now));
        let Some(found) = found else { return (0, actual) };
        match found.state {
            State::Settled { outcome, is_charged: true, .. } => return outcome,
            State::Settled { is_charged: false, .. } => return (0, actual),
            State::Held | State::Expired => {}
        }
        let reserved = found.amount;
        let mut charged = 0;
        if let SettleAction::Commit { actual, excess } = action {
            while charged < actual && self.spend(|token| token.holder == Some(id)) {
                charged += 1;
            }
            let most = if excess == Excess::Cap { actual.min(reserved) } else { actual };
            self.put_back(id);
            while charged < most
                && let Some(next) = self.next_available()
            {
                self.tokens.remove(next);
                self.spent += 1;
                charged += 1;
            }
            let limit = if let Excess::Owe(limit) = excess { limit } else { 0 };
            while charged < most && (charged < reserved || self.owed < limit) {
                self.owed += 1;
                charged += 1;
            }
        }
        self.put_back(id);
        self.repay();
        self.charged += charged;
        let outcome = (charged, actual - charged);
        let is_charged = action != SettleAction::Release;
        self.reservations.get_mut(&id).unwrap().state = State::Settled { at: now, outcome, is_charged };
        outcome
    }

    /// Of the tokens of an open reservation, those beyond the first `amount` return.
    pub(super) fn shrink(&mut self, id: ReservationId, amount: u64, now: u64) {
        self.at(now);
        let Some(held) = self.reservations.get_mut(&id).filter(|held| held.state == State::Held) else {
            return;
        };
        held.amount = held.amount.min(amount);
        self.give_to_another(id, LEAVING, |place| place >= amount);
        self.put_back(LEAVING);
        self.repay();
    }

    /// Tokens of the loan, if it is open, become those of a reservation that has expired, which is settled.
    pub(super) fn charge_lent(
        &mut self,
        id: ReservationId,
        loan: ReservationId,
        lent: u64,
        action: (u64, Excess),
        now: u64,
    ) -> (u64, u64) {
        self.at(now);
        let (actual, excess) = action;
        let commit = SettleAction::Commit { actual, excess };
        if self.reservations.get(&id).is_some_and(|known| known.is_remembered(now)) {
            return self.settle(id, commit, now);
        }
        let request = ModelReservation { amount: lent, expires_at: now, key: None, state: State::Expired };
        self.reservations.insert(id, request);
        if let Some(open) = self.reservations.get_mut(&loan).filter(|loan| loan.state == State::Held) {
            let taken = actual.min(lent).min(open.amount);
            open.amount -= taken;
            self.give_to_another(loan, id, |place| place < taken);
        }
        self.settle(id, commit, now)
    }

    /// Gives the tokens of a reservation in these places to another one.
    fn give_to_another(&mut self, id: ReservationId, other: ReservationId, which: impl Fn(u64) -> bool) {
        let of_reservation = self.tokens.iter_mut().filter(|token| token.holder == Some(id));
        for (_, token) in (0..).zip(of_reservation).filter(|(place, _)| which(*place)) {
            token.holder = Some(other);
        }
    }

    fn make(&mut self, grant: &str, amount: u64) {
        self.made += amount;
        let period = self.grants[grant].period;
        for _ in 0..amount {
            self.tokens.push(Token { grant: grant.to_owned(), period, holder: None });
        }
    }

    fn remove_available(&mut self, grant: &str) {
        let before = self.tokens.len();
        self.tokens.retain(|token| token.holder.is_some() || token.grant != grant);
        self.gone += (before - self.tokens.len()) as u64;
    }

    /// The tokens of a reservation return to their grants, or are gone if they cannot.
    fn put_back(&mut self, id: ReservationId) {
        let before = self.tokens.len();
        let grants = &self.grants;
        self.tokens.retain_mut(|token| {
            if token.holder != Some(id) {
                return true;
            }
            token.holder = None;
            !grants[&token.grant].has_ended && grants[&token.grant].period == token.period
        });
        self.gone += (before - self.tokens.len()) as u64;
    }

    fn repay(&mut self) {
        while self.owed > 0
            && let Some(next) = self.next_available()
        {
            self.tokens.remove(next);
            self.owed -= 1;
            self.spent += 1;
        }
    }

    /// Spends the first token of this kind.
    fn spend(&mut self, which: impl Fn(&Token) -> bool) -> bool {
        let Some(first) = self.tokens.iter().position(which) else { return false };
        self.tokens.remove(first);
        self.spent += 1;
        true
    }

    /// The token that is spent next.
    fn next_available(&self) -> Option<usize> {
        let available = self.tokens.iter().enumerate().filter(|(_, token)| token.holder.is_none());
        available.min_by_key(|(_, token)| self.order_of(&token.grant)).map(|(place, _)| place)
    }

    fn order_of<'a>(&self, id: &'a str) -> (i32, u64, u64, &'a str) {
        let grant = &self.grants[id];
        let period_ends = grant.refill.map_or(u64::MAX, |refill| end_of(refill, grant.period));
        let lapses = grant.expires_at.unwrap_or(u64::MAX).min(period_ends);
        (grant.priority, lapses, grant.granted_at, id)
    }

    fn user_of(&self, key: &str) -> Option<(ReservationId, &ModelReservation)> {
        let is_user = |user: &ModelReservation| user.key.as_ref().is_some_and(|(used, _)| used == key);
        self.reservations.iter().find(|(_, user)| is_user(user)).map(|(id, user)| (*id, user))
    }
}

impl ModelReservation {
    fn is_remembered(&self, now: u64) -> bool {
        match self.state {
            State::Held | State::Expired => now < self.expires_at + REMEMBERED,
            State::Settled { at, .. } => now < at + REMEMBERED,
        }
    }
}

impl ModelGrant {
    pub(super) fn new(amount: u64, granted_at: u64, refill: Option<Refill>) -> Self {
        let period = refill.map_or(0, |refill| period_of(refill, granted_at));
        Self { amount, priority: 0, granted_at, expires_at: None, refill, period, has_ended: false }
    }
}

const DAY: u64 = 86_400;

/// The start of the period that contains a second.
fn period_of(refill: Refill, second: u64) -> u64 {
    let mut start = second - second % DAY;
    while !begins_on(refill, start) {
        start -= DAY;
    }
    start
}

/// The start of the period after the one that contains a second.
fn end_of(refill: Refill, second: u64) -> u64 {
    let mut end = second - second % DAY + DAY;
    while !begins_on(refill, end) {
        end += DAY;
    }
    end
}

/// Whether a period begins at this midnight.
fn begins_on(refill: Refill, midnight: u64) -> bool {
    let Refill::Monthly { day } = refill else { return true };
    let (today, is_last) = CALENDAR[usize::try_from(midnight / DAY).unwrap()];
    today == day || (is_last && today < day)
}

/// For each day of the years 1970 to 2199: the day of the month, and whether it is the month's last one.
static CALENDAR: LazyLock<Vec<(u8, bool)>> = LazyLock::new(|| {
    let mut days = Vec::new();
    for year in 1970..2200 {
        let is_leap = year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
        for length in [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            days.extend((1..=length).map(|day| (day, day == length)));
        }
    }
    days
});

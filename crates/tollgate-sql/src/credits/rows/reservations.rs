//! Reservations as rows.

use std::time::SystemTime;

use tollgate_core::{
    credits::{ReservationState, ReservedPart, StoredReservation},
    key::{Digest, PepperId},
};

use super::{Found, Known, UNREADABLE, Wanted, amount, number};
use crate::{
    database::{Connection, Row, Value},
    fault::Fault,
    instant::{from_micros, to_micros},
};

/// The most expired reservations that one transaction releases. The statements below contain this number.
pub(in crate::credits) const MAX_DUE: usize = 100;

/// So many reservations have to be forgotten before a transaction deletes some: most need no statement for that. The statements below
/// contain this number.
const ENOUGH_FORGOTTEN: usize = 20;

/// Selects reservations. The last column says why they are selected: [`DUE`], [`FORGOTTEN`] or [`WANTED`].
macro_rules! select {
    ($why:literal) => {
        concat!(
            "SELECT id, amount, parts, expires_at, idempotency_key, fingerprint, state, charged, uncharged, settled_at, CAST(",
            $why,
            " AS BIGINT) FROM tollgate_credit_reservations WHERE account = $1 AND "
        )
    };
}

const DUE: i64 = 0;
const FORGOTTEN: i64 = 1;
const WANTED: i64 = 2;

macro_rules! select_due {
    () => {
        concat!(select!("0"), "state = 'held' AND expires_at <= $2 ORDER BY expires_at")
    };
}

macro_rules! select_due_and_forgotten {
    () => {
        concat!(
            "SELECT * FROM (",
            select_due!(),
            " LIMIT 100) AS due UNION ALL SELECT * FROM (",
            select!("1"),
            "state <> 'held' AND forgotten_at <= $2 LIMIT 20) AS forgotten"
        )
    };
}

/// The reservations that a change has to know, by one statement.
pub(super) async fn found(
    connection: &mut Connection,
    account: &str,
    now: SystemTime,
    wanted: Wanted<'_>,
) -> Result<Found, Fault> {
    const BY_ID: &str = concat!(select_due_and_forgotten!(), " UNION ALL ", select!("2"), "id = $3");
    const BY_IDS: &str = concat!(select_due_and_forgotten!(), " UNION ALL ", select!("2"), "id IN ($3, $4)");
    const BY_KEY: &str =
        concat!(select_due_and_forgotten!(), " UNION ALL ", select!("2"), "idempotency_key = $3");
    let mut values = vec![Value::from(account), to_micros(now).into()];
    let sql = match wanted {
        Wanted::Nothing | Wanted::EndedGrant(_) => select_due_and_forgotten!(),
        Wanted::Reservation(id) => {
            values.push(id.to_string().into());
            BY_ID
        }
        Wanted::Lent(id, loan) => {
            values.extend([id.to_string().into(), loan.to_string().into()]);
            BY_IDS
        }
        Wanted::ReservationWithKey(key) => {
            values.push(digest_of(key));
            BY_KEY
        }
    };
    let (mut found, mut forgotten) = (Found::default(), 0);
    for row in connection.rows(sql, values).await? {
        match row.number(10)? {
            DUE => found.due.push(read(&row)?),
            FORGOTTEN => forgotten += 1,
            WANTED => {
                let reservation = read(&row)?;
                let is_loan = matches!(wanted, Wanted::Lent(id, _) if id != reservation.id);
                let Known { reservation: wanted, loan } = &mut found.wanted;
                *if is_loan { loan } else { wanted } = Some(reservation);
            }
            _ => return Err(UNREADABLE),
        }
    }
    found.has_forgotten = forgotten == ENOUGH_FORGOTTEN;
    Ok(found)
}

/// All reservations of an account whose time is up.
pub(in crate::credits) async fn all_due(
    connection: &mut Connection,
    account: &str,
    now: SystemTime,
) -> Result<Vec<StoredReservation>, Fault> {
    let rows = connection.rows(select_due!(), [account.into(), to_micros(now).into()]).await?;
    rows.iter().map(read).collect()
}

/// Deletes up to 100 reservations of an account that are forgotten.
pub(in crate::credits) async fn delete_forgotten(
    connection: &mut Connection,
    account: &str,
    now: SystemTime,
) -> Result<(), Fault> {
    let sql = "DELETE FROM tollgate_credit_reservations WHERE id IN (SELECT id FROM tollgate_credit_reservations \
               WHERE account = $1 AND state <> 'held' AND forgotten_at <= $2 LIMIT 100)";
    connection.execute(sql, [account.into(), to_micros(now).into()]).await?;
    Ok(())
}

pub(super) async fn insert(
    connection: &mut Connection,
    account: &str,
    reservation: &StoredReservation,
) -> Result<(), Fault> {
    let sql = "INSERT INTO tollgate_credit_reservations (id, state, parts, charged, uncharged, settled_at, forgotten_at, \
               account, amount, expires_at, idempotency_key, fingerprint) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let idempotency = reservation.idempotency.as_ref();
    let lasting = [
        account.into(),
        number(reservation.amount),
        to_micros(reservation.expires_at).into(),
        idempotency.map_or(Value::Bytes(None), |(key, _)| digest_of(key)),
        idempotency.map(|(_, fingerprint)| fingerprint_bytes(fingerprint)).into(),
    ];
    connection.execute(sql, changeable(reservation).into_iter().chain(lasting)).await?;
    Ok(())
}

/// Stores what has become of a reservation, what it holds, and whether it still has its idempotency key.
pub(super) async fn update(
    connection: &mut Connection,
    reservation: &StoredReservation,
) -> Result<(), Fault> {
    let sql = "UPDATE tollgate_credit_reservations SET state = $2, parts = $3, charged = $4, uncharged = $5, \
               settled_at = $6, forgotten_at = $7, \
               idempotency_key = CASE $8 WHEN 1 THEN idempotency_key END, \
               fingerprint = CASE $8 WHEN 1 THEN fingerprint END, amount = $9 WHERE id = $1";
    let has_key = i64::from(reservation.idempotency.is_some());
    let values = changeable(reservation).into_iter().chain([has_key.into(), number(reservation.amount)]);
    connection.execute(sql, values).await?;
    Ok(())
}

/// The identifier of a reservation, and the columns that can change, as `$1` to `$7` of a statement.
fn changeable(reservation: &StoredReservation) -> [Value; 7] {
    let (state, charged, uncharged, settled_at) = match reservation.state {
        ReservationState::Held => ("held", 0, 0, None),
        ReservationState::Expired => ("expired", 0, 0, None),
        ReservationState::Committed { charged, uncharged, at } => ("committed", charged, uncharged, Some(at)),
        ReservationState::Released { at } => ("released", 0, 0, Some(at)),
        // Core has no other states. One that this version cannot store must not look like an open reservation.
        _ => ("unknown", 0, 0, None),
    };
    [
        reservation.id.to_string().into(),
        state.into(),
        parts_text(&reservation.parts).into(),
        number(charged),
        number(uncharged),
        settled_at.map(to_micros).into(),
        to_micros(reservation.forgotten_at()).into(),
    ]
}

fn read(row: &Row) -> Result<StoredReservation, Fault> {
    let settled_at = row.optional_number(9)?.map(from_micros);
    let state = match (&*row.text(6)?, settled_at) {
        ("held", _) => ReservationState::Held,
        ("expired", _) => ReservationState::Expired,
        ("committed", Some(at)) => {
            ReservationState::Committed { charged: amount(row, 7)?, uncharged: amount(row, 8)?, at }
        }
        ("released", Some(at)) => ReservationState::Released { at },
        _ => return Err(UNREADABLE),
    };
    // The text of the key is not stored, and core needs it of new reservations only.
    let fingerprint = row.optional_bytes(5)?.map(|bytes| read_fingerprint(&bytes)).transpose()?;
    let idempotency = fingerprint.map(|fingerprint| (Box::default(), fingerprint));
    let id = row.text(0)?.parse().map_err(|_| UNREADABLE)?;
    let reservation = StoredReservation::new(id, amount(row, 1)?, from_micros(row.number(3)?), state);
    Ok(reservation.with_parts(read_parts(&row.text(2)?)?).with_idempotency(idempotency))
}

/// What is stored of an idempotency key.
fn digest_of(key: &str) -> Value {
    (&Digest::of(key).as_bytes()[..]).into()
}

/// A fingerprint: 32 bytes, and two for its pepper if it has one.
fn fingerprint_bytes(fingerprint: &Digest) -> Vec<u8> {
    let pepper = fingerprint.pepper().map(|pepper| pepper.get().to_be_bytes());
    fingerprint.as_bytes().iter().copied().chain(pepper.into_iter().flatten()).collect()
}

fn read_fingerprint(bytes: &[u8]) -> Result<Digest, Fault> {
    let (digest, pepper) = bytes.split_first_chunk::<32>().ok_or(UNREADABLE)?;
    let pepper = match pepper {
        [] => None,
        [high, low] => Some(PepperId::new(u16::from_be_bytes([*high, *low]))),
        _ => return Err(UNREADABLE),
    };
    Ok(Digest::from_parts(*digest, pepper))
}

/// The parts of a reservation as JSON: `[["grant", period, amount]]`.
fn parts_text(parts: &[ReservedPart]) -> String {
    let parts: Vec<_> = parts.iter().map(|part| (&*part.grant, part.period, part.amount)).collect();
    // Texts and numbers always serialize.
    serde_json::to_string(&parts).unwrap_or_default()
}

fn read_parts(text: &str) -> Result<Vec<ReservedPart>, Fault> {
    let parts: Vec<(String, u64, u64)> = serde_json::from_str(text).map_err(|_| UNREADABLE)?;
    Ok(parts
        .into_iter()
        .map(|(grant, period, amount)| ReservedPart::new(grant.into(), period, amount))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_fingerprints_are_read_as_they_are_written() {
        let parts = vec![
            ReservedPart::new("a \"b\" ü".into(), u64::MAX, 1),
            ReservedPart::new("".into(), 0, u64::MAX),
        ];
        assert_eq!(read_parts(&parts_text(&parts)).unwrap(), parts);
        assert_eq!(parts_text(&[]), "[]");
        assert!(read_parts("").is_err());
        for pepper in [None, Some(PepperId::new(0)), Some(PepperId::new(259))] {
            let fingerprint = Digest::from_parts([7; 32], pepper);
            assert_eq!(read_fingerprint(&fingerprint_bytes(&fingerprint)).unwrap(), fingerprint);
        }
        assert!(read_fingerprint(&[7; 31]).is_err() && read_fingerprint(&[7; 33]).is_err());
    }
}

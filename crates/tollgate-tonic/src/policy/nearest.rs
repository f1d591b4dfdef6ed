//! Finds the name that was probably meant.

/// ` (did you mean ..?)` with the most similar of these names; nothing if none is similar.
pub(super) fn suggestion<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let distances = names.into_iter().map(|name| (distance(wrong, name), name));
    match distances.min() {
        // A third of a name may differ: `GetQuote` is not a misspelled `Chat`.
        Some((distance, name)) if distance * 3 <= wrong.len().max(name.len()) => {
            format!(" (did you mean {name}?)")
        }
        _ => String::new(),
    }
}

/// How many characters must be inserted, removed or replaced to make one text of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // The distances of the characters so far to each beginning of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, character) in from.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = at + 1;
        next.push(left);
        for ((&other, &diagonal), &above) in to.iter().zip(&row).zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(character != other);
            left = replaced.min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_the_distance() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("GetPrice", "GetPrices", 1),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn suggests_only_similar_names() {
        assert_eq!(
            suggestion("a.B/GetQuote", ["a.B/GetQuotes", "a.B/Chat"]),
            " (did you mean a.B/GetQuotes?)"
        );
        assert_eq!(suggestion("GetQuote", ["Chat"]), "");
        assert_eq!(suggestion("GetQuote", []), "");
    }
}

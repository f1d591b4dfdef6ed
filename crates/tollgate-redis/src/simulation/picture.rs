use super::{Figures, Setting, Sharing};

pub(super) fn draw(_: &[(Setting, Sharing, Figures)]) -> String {
    String::new()
}

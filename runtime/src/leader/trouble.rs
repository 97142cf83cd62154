//! What a candidate says about an API server that fails it: each sort of trouble once, however its text changes from round
//! to round, and once that it is over. Bounded by the number of status codes.

use std::collections::BTreeSet;

/// What is to be said now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    Trouble(String),
    Over,
}

impl Said {
    pub(super) fn log(self, doing: &str) {
        match self {
            Self::Nothing => {}
            Self::Trouble(text) => tracing::warn!("{text}"),
            Self::Over => tracing::info!("{doing}: the API server answers again"),
        }
    }
}

/// What was said since it went well.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// By status code; `None`: there was no answer.
    sorts: BTreeSet<Option<u16>>,
}

impl Trouble {
    pub(super) fn met(&mut self, code: Option<u16>, text: impl FnOnce() -> String) -> Said {
        if self.sorts.insert(code) {
            Said::Trouble(text())
        } else {
            Said::Nothing
        }
    }

    pub(super) fn over(&mut self) -> Said {
        if std::mem::take(&mut self.sorts).is_empty() {
            Said::Nothing
        } else {
            Said::Over
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sort_is_said_once() {
        let mut trouble = Trouble::default();
        let said = |text: &str| Said::Trouble(text.to_owned());
        assert_eq!(trouble.over(), Said::Nothing);
        assert_eq!(trouble.met(None, || "refused".into()), said("refused"));
        assert_eq!(trouble.met(None, || "reset".into()), Said::Nothing);
        assert_eq!(trouble.met(Some(500), || "starting".into()), said("starting"));
        assert_eq!(trouble.met(None, || "refused".into()), Said::Nothing);
        assert_eq!(trouble.over(), Said::Over);
        assert_eq!(trouble.over(), Said::Nothing);
        assert_eq!(trouble.met(None, || "refused".into()), said("refused"), "again");
    }
}

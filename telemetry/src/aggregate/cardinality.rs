//! A budget of label sets. What does not fit is not lost: it is counted under one set named "other", and that this happens is
//! counted too.

/// How many label sets there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub max: usize,
}

/// Where something new goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Own,
    Other,
}

impl Budget {
    /// `used` counts the sets there are, "other" not among them.
    pub fn place(self, known: bool, used: usize) -> Place {
        if known || used < self.max {
            Place::Own
        } else {
            Place::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let budget = Budget { max: 2 };
        for (known, used, expect) in [
            (false, 0, Place::Own),
            (false, 1, Place::Own),
            (false, 2, Place::Other),
            (true, 2, Place::Own),
            (true, 9, Place::Own),
        ] {
            assert_eq!(budget.place(known, used), expect, "{known} {used}");
        }
    }
}

//! Numbers that may be percentages.

use alloc::string::String;

use serde::Deserialize;

/// `intstr.IntOrString` where the string is a percentage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum IntOrPercent {
    Int(i64),
    Percent(String),
}

impl IntOrPercent {
    /// The number, of `total` if it is a percentage (`GetScaledValueFromIntOrPercent`); 0 if it is neither.
    pub(crate) fn scaled(&self, total: i64, round_up: bool) -> i64 {
        self.checked(total, round_up).unwrap_or(0)
    }

    /// The same, or nothing if it is neither.
    pub(crate) fn checked(&self, total: i64, round_up: bool) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Percent(text) => {
                let percent = text.strip_suffix('%')?.parse::<i64>().ok()?;
                let product = percent.saturating_mul(total);
                Some(if round_up {
                    product.saturating_add(99).div_euclid(100)
                } else {
                    product.div_euclid(100)
                })
            }
        }
    }
}

/// How many pods may be above and below the desired number (`deployment/util.ResolveFenceposts`): surge rounds up,
/// unavailability down, and both cannot be zero.
pub(crate) fn resolve_fenceposts(
    surge: Option<&IntOrPercent>,
    unavailable: Option<&IntOrPercent>,
    desired: i64,
) -> (i64, i64) {
    let quarter = IntOrPercent::Percent("25%".into());
    let surge = surge.unwrap_or(&quarter).scaled(desired, true).max(0);
    let unavailable = unavailable.unwrap_or(&quarter).scaled(desired, false).max(0);
    // Not both zero: validation forbids it, but percentages round.
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fenceposts_round_as_upstream() {
        let int = IntOrPercent::Int;
        let percent = |p: &str| IntOrPercent::Percent(p.into());
        for (surge, unavailable, desired, want) in [
            (int(1), int(1), 10, (1, 1)),
            (percent("25%"), percent("25%"), 10, (3, 2)),
            (percent("0%"), percent("1%"), 10, (0, 1)),
            (percent("25%"), percent("25%"), 1, (1, 0)),
            (percent("39%"), percent("39%"), 10, (4, 3)),
            (int(0), percent("0%"), 0, (0, 1)),
            (percent("nonsense"), int(2), 5, (0, 2)),
        ] {
            assert_eq!(resolve_fenceposts(Some(&surge), Some(&unavailable), desired), want);
        }
        assert_eq!(resolve_fenceposts(None, None, 8), (2, 2));
    }
}

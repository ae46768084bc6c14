//! `resource.Quantity`: a fixed-point number with a suffix, such as `500m`, `1Gi` or `2e3`.
//!
//! Values are exact to a billionth and rounded up there, as upstream
//! (`k8s.io/apimachinery/pkg/api/resource/quantity.go`).
//!
//! ```
//! use icp_core::api::Quantity;
//! let q: Quantity = "1024Mi".parse().unwrap();
//! assert_eq!(q.to_string(), "1Gi");
//! assert_eq!("0.5".parse::<Quantity>().unwrap().to_string(), "500m");
//! assert_eq!(q.value(), 1 << 30);
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use core::cmp::Ordering;
use core::fmt;
use core::ops::{Add, Sub};
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

const NANO: i128 = 1_000_000_000;
/// Values are capped at `2^63 - 1` units, as upstream.
const MAX: i128 = i64::MAX as i128 * NANO;

/// Which family of suffixes a quantity is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `m`, none, `k`, `M`, `G`, ...
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`, ...
    BinarySi,
    /// `e3`, `e6`, ...
    DecimalExponent,
}

/// A quantity. Equality and order compare the amounts, not the suffixes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// A text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// The text has not the form of a quantity.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none that is known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Whole units, in decimal form.
    #[must_use]
    pub const fn from_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANO, format: Format::DecimalSi }
    }

    /// Thousandths, in decimal form.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Whole units (bytes), in binary form.
    #[must_use]
    pub const fn from_bytes(bytes: i64) -> Self {
        Self { nanos: bytes as i128 * NANO, format: Format::BinarySi }
    }

    /// The amount in billionths.
    #[must_use]
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// The amount in thousandths, rounded up.
    #[must_use]
    pub fn millis(self) -> i64 {
        clamp(div_up(self.nanos, NANO / 1000))
    }

    /// The amount in whole units, rounded up.
    #[must_use]
    pub fn value(self) -> i64 {
        clamp(div_up(self.nanos, NANO))
    }

    /// Whether the amount is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether the amount is below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The family of suffixes.
    #[must_use]
    pub const fn format(self) -> Format {
        self.format
    }

    /// A quantity as it stands in an object: a text, or a number.
    ///
    /// # Errors
    /// If the value is neither, or not of the form of a quantity.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(s) => s.parse(),
            Value::Number(n) => n.to_string().parse(),
            _ => Err(QuantityError::Format),
        }
    }
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero, as upstream rounds quantities up.
fn div_up(n: i128, by: i128) -> i128 {
    let (q, r) = (n / by, n % by);
    match r.cmp(&0) {
        Ordering::Equal => q,
        Ordering::Greater => q + 1,
        Ordering::Less => q - 1,
    }
}

/// The factor of a suffix: (is it a multiple, the factor or divisor, the format).
fn suffix_of(s: &str) -> Result<(i32, u32, Format), QuantityError> {
    // (power of ten, power of 1024, format)
    Ok(match s {
        "n" => (-9, 0, Format::DecimalSi),
        "u" => (-6, 0, Format::DecimalSi),
        "m" => (-3, 0, Format::DecimalSi),
        "" => (0, 0, Format::DecimalSi),
        "k" => (3, 0, Format::DecimalSi),
        "M" => (6, 0, Format::DecimalSi),
        "G" => (9, 0, Format::DecimalSi),
        "T" => (12, 0, Format::DecimalSi),
        "P" => (15, 0, Format::DecimalSi),
        "E" => (18, 0, Format::DecimalSi),
        "Ki" => (0, 1, Format::BinarySi),
        "Mi" => (0, 2, Format::BinarySi),
        "Gi" => (0, 3, Format::BinarySi),
        "Ti" => (0, 4, Format::BinarySi),
        "Pi" => (0, 5, Format::BinarySi),
        "Ei" => (0, 6, Format::BinarySi),
        _ => {
            let exponent = s.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let n: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            (n.clamp(-64, 64), 0, Format::DecimalExponent)
        }
    })
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (negative, body) = match s.as_bytes().first() {
            Some(b'-') => (true, s.get(1..).unwrap_or("")),
            Some(b'+') => (false, s.get(1..).unwrap_or("")),
            Some(_) => (false, s),
            None => return Err(QuantityError::Format),
        };
        let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
        let (number, suffix) = body.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (ten, k, format) = suffix_of(suffix)?;
        // All digits as one number, then the point moves: `scale` is the power of ten of the last digit in nanos.
        let mut digits: i128 = 0;
        let mut dropped = false;
        let mut scale = ten + 9;
        for c in whole.bytes().chain(fraction.bytes()) {
            if digits < i128::from(u64::MAX) * 1_000_000 {
                digits = digits * 10 + i128::from(c - b'0');
            } else {
                dropped |= c != b'0';
                scale += 1;
            }
        }
        scale -= i32::try_from(fraction.len()).map_err(|_| QuantityError::Format)?;
        let mut value = digits.saturating_mul(1024i128.pow(k));
        for _ in 0..scale.clamp(0, 64) {
            value = value.saturating_mul(10);
        }
        let mut inexact = dropped;
        for _ in 0..(-scale).clamp(0, 128) {
            inexact |= value % 10 != 0;
            value /= 10;
        }
        // Too small for a billionth is a billionth, never nothing.
        value = value.saturating_add(i128::from(inexact)).min(MAX);
        Ok(Self { nanos: if negative { -value } else { value }, format })
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANO {
            let mut n = div_up(self.nanos, NANO);
            let mut power = 0usize;
            while n % 1024 == 0 && power < 6 {
                n /= 1024;
                power += 1;
            }
            let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(power).copied().unwrap_or("");
            return write!(f, "{n}{suffix}");
        }
        let (mut n, mut power) = (self.nanos, -9i32);
        while n % 1000 == 0 && power < 18 {
            n /= 1000;
            power += 3;
        }
        if self.format == Format::DecimalExponent {
            return if power == 0 { write!(f, "{n}") } else { write!(f, "{n}e{power}") };
        }
        let suffix = match power {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{n}{suffix}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, capped; in the format of the left side, or of the right if the left is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    /// The difference, capped; in the format of the left side, or of the right if the left is zero.
    fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos - other.nanos).clamp(-MAX, MAX), format }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(d)?;
        Self::from_value(&value).map_err(|e| serde::de::Error::custom(format!("{e}")))
    }
}

/// The canonical form of a quantity in text form, or `None` if it is not one.
#[must_use]
pub fn canonical(text: &str) -> Option<String> {
    text.parse::<Quantity>().ok().map(|q| q.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (text, want) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("100k", "100k"),
            ("0.1n", "1n"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("123Mi", "123Mi"),
            ("-1", "-1"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("9223372036854775807", "9223372036854775807"),
            ("100E", "9223372036854775807"),
            ("0.0000000001", "1n"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(want), "{text}");
        }
        for bad in ["", "abc", "1.2.3", "1x", "--1", "1 Gi", ".", "1e", "Ki"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn printing_keeps_the_amount(n in any::<i32>(), suffix in prop::sample::select(
            alloc::vec!["n", "u", "m", "", "k", "M", "Ki", "Mi", "Gi", "e3", "e-3"])) {
            let q: Quantity = format!("{n}{suffix}").parse().unwrap();
            prop_assert_eq!(q.to_string().parse::<Quantity>().unwrap(), q);
        }

        #[test]
        fn sums_agree_with_integers(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000) {
            let (x, y) = (Quantity::from_millis(a), Quantity::from_millis(b));
            prop_assert_eq!((x + y).millis(), a + b);
            prop_assert_eq!((x - y).millis(), a - b);
            prop_assert_eq!(x < y, a < b);
        }

        #[test]
        fn any_text_is_answered(s in "[-+0-9.eEinumkKMGTP]{0,40}") {
            let _ = s.parse::<Quantity>();
        }
    }
}

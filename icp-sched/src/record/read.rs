//! Reading a history.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::base::Time;
use icp_core::client::RequestId;

use super::Settings;
use super::error::HistoryError;
use super::line::{Fields, read_asked, read_decisions, read_input};
use super::objects::{KEPT_MAX, Objects, merged};
use crate::config::Registry;
use crate::machine::{Decision, Event};

/// The longest line, in bytes: a list of ten million objects.
pub const LINE_MAX: usize = 128 << 20;

/// What the machine was given.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one; it is moved, not kept")]
pub enum Input {
    /// An event.
    Event(Event),
    /// It was woken.
    Wake,
    /// An Event or a condition was written, or not: that matters to no decision.
    Noted,
}

/// What a line adds to the history.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// How the machine was made.
    Begin(Settings),
    /// An input.
    Input {
        /// When.
        at: Time,
        /// What.
        input: Input,
        /// What was decided on it, in order.
        decided: Vec<Decision>,
        /// What was asked on it, and by which id its answers name that.
        asked: Vec<(RequestId, String)>,
    },
    /// Nothing by itself.
    Object,
}

/// Reads a history line by line.
#[derive(Debug, Default)]
pub struct Reader {
    objects: Objects,
    line: u64,
    at: u64,
    begun: bool,
}

impl Reader {
    /// A reader before the first line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many lines were read.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.line
    }

    /// Whether the first line was read.
    #[must_use]
    pub const fn begun(&self) -> bool {
        self.begun
    }

    /// Reads the next line, with or without its end.
    ///
    /// # Errors
    /// If it is damaged, of an unknown version, or names what no line before it holds.
    pub fn read(&mut self, text: &[u8], registry: &Registry) -> Result<Step, HistoryError> {
        self.line += 1;
        let line = self.line;
        if text.len() > LINE_MAX {
            return Err(HistoryError::TooLong { line });
        }
        if !self.begun {
            let fields = Fields::parse(line, text).map_err(|_| HistoryError::NotAHistory)?;
            let settings = Settings::from_fields(fields, registry)?;
            self.begun = true;
            return Ok(Step::Begin(settings));
        }
        let mut fields = Fields::parse(line, text)?;
        if fields.has("n") {
            return self.object(fields);
        }
        if fields.flag("forget")? {
            self.objects.forget();
            fields.end()?;
            return Ok(Step::Object);
        }
        let micros = fields.number("at")?;
        let at = i64::try_from(micros).map_err(|_| fields.wrong("at", "is no time"))?;
        if micros < self.at {
            return Err(fields.wrong("at", "is before the line above"));
        }
        self.at = micros;
        let decided = read_decisions(&mut fields)?;
        let asked = read_asked(&mut fields)?;
        let input = read_input(&mut fields, &mut self.objects)?;
        fields.end()?;
        self.objects.settle();
        Ok(Step::Input { at: Time::from_micros(at), input, decided, asked })
    }

    fn object(&mut self, mut fields: Fields) -> Result<Step, HistoryError> {
        let (number, next) = (fields.number("n")?, self.objects.next());
        if number != next {
            return Err(fields.wrong("n", format!("is {number}, but {next} is next")));
        }
        if self.objects.len() >= 4 * KEPT_MAX {
            return Err(fields.wrong("n", "too many objects are known at once"));
        }
        let object = if fields.has("of") {
            let of = fields.number("of")?;
            let known = self.objects.get(of).cloned();
            let known = known.ok_or_else(|| fields.wrong("of", format!("object {of} is not known here")))?;
            let change = fields.take("merge").ok_or_else(|| fields.wrong("merge", "is missing"))?;
            merged(&known, &change).map_err(|e| fields.wrong("merge", e.to_string()))?
        } else {
            let value = fields.take("object").ok_or_else(|| fields.wrong("object", "is missing"))?;
            serde_json::from_value::<Object>(value).map_err(|e| fields.wrong("object", e.to_string()))?
        };
        fields.end()?;
        self.objects.put(Arc::new(object));
        Ok(Step::Object)
    }
}

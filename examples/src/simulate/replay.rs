//! A saved trace, read back.
//!
//! ```
//! use examples::simulate::replay::{Query, Saved};
//! let text = "# icp trace 1: seed 7\n0.000100 m1 wakes\n1.500000 n0 < m1 ARP\n# state at the end\n= m1 is off\n";
//! let saved = Saved::parse(text.into()).unwrap();
//! assert_eq!(saved.find(&Query { grep: Some("ARP|CARP".into()), ..Query::default() }), [1]);
//! assert_eq!(saved.state().collect::<Vec<_>>(), ["= m1 is off"]);
//! ```

/// What begins every saved trace.
const MAGIC: &str = "# icp trace 1: ";
/// What stands between the steps and the state.
const STATE: &str = "# state at the end";

/// A text is not a saved trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It does not begin as one.
    #[error("this is not a trace of `simulate`: it does not begin with {MAGIC:?}")]
    Magic,
    /// It ends before its state.
    #[error("the trace is cut: the state at the end is missing")]
    Cut,
}

/// A saved trace.
#[derive(Clone, Debug)]
pub struct Saved {
    header: String,
    steps: Vec<String>,
    state: Vec<String>,
}

/// Which steps are wanted.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// At or after this second.
    pub from: Option<f64>,
    /// Up to this second.
    pub until: Option<f64>,
    /// With this text in them, or with one of several that `|` separates.
    pub grep: Option<String>,
    /// Of this host.
    pub host: Option<String>,
}

impl Query {
    fn wants(&self, step: &str) -> bool {
        let mut words = step.splitn(3, ' ');
        let at: f64 = words.next().and_then(|t| t.parse().ok()).unwrap_or(0.0);
        let host = words.next().unwrap_or("");
        self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at <= until)
            && self.host.as_deref().is_none_or(|want| want == host)
            && self.grep.as_deref().is_none_or(|texts| texts.split('|').any(|t| step.contains(t)))
    }
}

impl Saved {
    /// Reads a trace.
    ///
    /// # Errors
    /// [`ReplayError`] if the text is not a whole trace.
    pub fn parse(text: String) -> Result<Self, ReplayError> {
        let mut lines = text.lines();
        let header = lines.next().filter(|l| l.starts_with(MAGIC)).ok_or(ReplayError::Magic)?.to_string();
        let steps: Vec<String> = lines.by_ref().take_while(|l| *l != STATE).map(String::from).collect();
        let state: Vec<String> = lines.map(String::from).collect();
        if state.is_empty() {
            return Err(ReplayError::Cut);
        }
        Ok(Self { header, steps, state })
    }

    /// What was simulated.
    #[must_use]
    pub fn header(&self) -> &str {
        self.header.trim_start_matches("# ")
    }

    /// How many steps there are.
    #[must_use]
    pub const fn steps(&self) -> usize {
        self.steps.len()
    }

    /// One step.
    #[must_use]
    pub fn step(&self, at: usize) -> &str {
        self.steps.get(at).map_or("", String::as_str)
    }

    /// The numbers of the steps that are wanted.
    #[must_use]
    pub fn find(&self, query: &Query) -> Vec<usize> {
        self.steps.iter().enumerate().filter(|(_, s)| query.wants(s)).map(|(i, _)| i).collect()
    }

    /// The state at the end, by line.
    pub fn state(&self) -> impl Iterator<Item = &str> {
        self.state.iter().map(String::as_str)
    }
}

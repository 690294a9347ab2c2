//! Faults of a server that was built with seeded bugs: one bug that is on, and points at which the server crashes.

/// Passed to the server in its environment; a server without seeded bugs ignores it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// The seeded bug that is on for the whole run.
    pub bug: Option<String>,
    /// Named points at which the server ends itself instead of being killed.
    pub crash_at: Vec<String>,
}

impl Faults {
    /// The environment of one start. `crash` chooses a point, and at which pass through it the server ends itself.
    pub(crate) fn environment(&self, crash: Option<(usize, u32)>) -> Vec<(&'static str, String)> {
        let mut environment: Vec<_> = self.bug.iter().map(|bug| ("RACHIS_FAULT", bug.clone())).collect();
        if let Some((point, pass)) = crash.filter(|_| !self.crash_at.is_empty()) {
            environment.push((
                "RACHIS_CRASH_AT",
                format!("{}:{pass}", self.crash_at[point % self.crash_at.len()]),
            ));
        }
        environment
    }
}

//! What is wrong with the server on purpose, where it was built so: a seeded bug, and points at which it ends itself.

/// Asked of a server that was built with seeded bugs; another server takes no notice.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// On for the whole run.
    pub bug: Option<String>,
    /// Where it ends itself, instead of being killed from outside.
    pub crash_at: Vec<String>,
}

impl Faults {
    /// The environment of one start. `crash` picks a point and the pass at which it ends.
    pub fn environment(&self, crash: Option<(usize, u32)>) -> Vec<(&'static str, String)> {
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

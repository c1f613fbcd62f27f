//! What can be tested without a cluster: the walks, the properties of the plan, and that what is generated has not drifted.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod it {
    mod arrows;
    mod generated;
    mod model;
    mod objects;
    mod properties;
    mod walks;
}

//! What can be tested without a cluster: the walks, the properties of the plan, and that what is generated has not drifted.

mod it {
    mod arrows;
    mod generated;
    mod model;
    mod objects;
    mod properties;
    mod walks;
}

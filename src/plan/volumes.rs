//! The three volumes that all sandboxes of a session share.

/// A volume that all sandboxes of a session share. The mount paths are the framework's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum SharedVolume {
    /// Scripts that initialisers run.
    Scripts,
    /// Data.
    Data,
    /// Tools.
    Tools,
}

impl SharedVolume {
    /// All volumes, in the order in which they are created and filled.
    pub const ALL: [SharedVolume; 3] = [SharedVolume::Scripts, SharedVolume::Data, SharedVolume::Tools];

    /// The path at which every sandbox mounts the volume.
    pub fn mount_path(self) -> &'static str {
        match self {
            SharedVolume::Scripts => "/sandbox_scripts",
            SharedVolume::Data => "/shared",
            SharedVolume::Tools => "/bash_tools",
        }
    }
}

//! `sandboxd install DIR`: puts what sandboxes use of the operator's image into a volume, for clusters that cannot mount the image
//! itself: the running program, and a configuration of git.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The running program. This path works even where the path of the program itself is unknown.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The configuration of git for sandboxes, which the operator's image has as a file.
const GIT_CONFIG: &[u8] = include_bytes!("gitconfig");

/// Why the program could not be copied.
#[derive(Debug, Error)]
pub enum Error {
    /// The running program cannot be read.
    #[error("cannot read {THIS_PROGRAM}")]
    Read(#[source] io::Error),
    /// The copy cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file that was being written.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
}

/// Copies the running program to `folder/sandboxd`, executable for everyone, and the configuration of git to `folder/gitconfig`. A name
/// never refers to a partial copy.
///
/// # Errors
/// When the folder does not exist, is full, or may not be written.
pub fn install(folder: &Path) -> Result<(), Error> {
    let mut program = File::open(THIS_PROGRAM).map_err(Error::Read)?;
    place(&mut program, 0o755, folder, "sandboxd")?;
    place(&mut &GIT_CONFIG[..], 0o644, folder, "gitconfig")
}

fn place(content: &mut impl io::Read, mode: u32, folder: &Path, name: &str) -> Result<(), Error> {
    let part = folder.join(format!(".{name}.part"));
    let path = folder.join(name);
    write(content, mode, &part).map_err(|error| Error::Write { path: part.clone(), error })?;
    fs::rename(&part, &path).map_err(|error| Error::Write { path, error })
}

fn write(content: &mut impl io::Read, mode: u32, part: &Path) -> io::Result<()> {
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut copy = File::create_new(part)?;
    io::copy(content, &mut copy)?;
    copy.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_whole_and_executable_and_replaces_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sandboxd"), "an older one").unwrap();
        fs::write(folder.path().join(".sandboxd.part"), "left by a crash").unwrap();

        install(folder.path()).unwrap();

        let copy = folder.path().join("sandboxd");
        assert_eq!(fs::read(&copy).unwrap(), fs::read(THIS_PROGRAM).unwrap());
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o755);
        let git = folder.path().join("gitconfig");
        assert_eq!(fs::read(&git).unwrap(), GIT_CONFIG);
        assert_eq!(fs::metadata(&git).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = install(Path::new("/no/such/folder")).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /no/such/folder/.sandboxd.part");
    }
}

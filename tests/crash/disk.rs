//! A small disk that can be filled: a tmpfs of its own.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts so many MiB on a folder, or says why that can't be had.
    pub fn mount(folder: &Path, mib: u64) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let size = format!("size={mib}m");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        let output = output.map_err(|error| format!("mount cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(format!("a tmpfs cannot be mounted: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Leaves no byte free.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        for block in [1 << 20, 4 << 10] {
            let zeros = vec![0_u8; block];
            // Until the disk is full, which is the point.
            while ballast.write_all(&zeros).is_ok() {}
        }
        Ok(())
    }

    pub fn free(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.folder.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_freed() {
        let folder = tempfile::tempdir().unwrap();
        let disk = match SmallDisk::mount(&folder.path().join("disk"), 4) {
            Ok(disk) => disk,
            Err(why) => return weir_tests::skip("small-disk", &why),
        };
        let file = folder.path().join("disk/file");
        std::fs::write(&file, "before").unwrap();
        disk.fill().unwrap();
        let error = std::fs::write(&file, vec![1; 100_000]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        disk.free().unwrap();
        // The kernel counts freed pages a little later.
        let written = (0..50).any(|_| {
            let is_written = std::fs::write(&file, vec![1; 100_000]).is_ok();
            if !is_written {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            is_written
        });
        assert!(written);
    }
}

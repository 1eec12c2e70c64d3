//! Which programs speak to the kernel, and what each can do.

use std::{fmt, path::Path};

use crate::{
    iptables::{self, Chain, Family},
    nftables,
    redirection::Redirection,
    tool::{ToolError, run},
};

/// A way to make rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The program `nft`.
    Nftables,
    /// The programs `iptables-nft-restore` and `ip6tables-nft-restore`.
    IptablesNft,
    /// The programs `iptables-legacy-restore` and `ip6tables-legacy-restore`.
    IptablesLegacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

impl Backend {
    /// All, the preferred first.
    pub const ALL: [Self; 3] = [Self::Nftables, Self::IptablesNft, Self::IptablesLegacy];

    /// Whether the default deny can be made.
    pub(crate) fn probe_deny(self) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::probe_deny());
        }
        for family in families() {
            self.restore(family, &iptables::probe("filter", &iptables::deny(family)))?;
        }
        Ok(())
    }

    /// Whether `redirection` can be made.
    pub(crate) fn probe_mesh(self, redirection: &Redirection) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::probe_mesh(redirection.ipv6));
        }
        let everything = Redirection::everything(redirection.ipv6);
        for family in families() {
            for chain in iptables::MESH {
                let rules = iptables::mesh(chain, family, &everything);
                self.restore(family, &iptables::probe(chain.table, &rules))?;
            }
        }
        Ok(())
    }

    pub(crate) fn deny(self) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::deny());
        }
        for family in families() {
            let jumps = self.look(family, iptables::DENY)?.jumps;
            let text = iptables::DENY.replace(jumps, &iptables::deny(family));
            self.restore(family, &text)?;
        }
        Ok(())
    }

    pub(crate) fn open(self) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::delete(nftables::DENY));
        }
        for family in families() {
            self.remove_chain(family, iptables::DENY)?;
        }
        Ok(())
    }

    /// Whether the default deny is there, for any family.
    pub(crate) fn is_denied(self) -> Result<bool, ToolError> {
        self.has(nftables::DENY, iptables::DENY)
    }

    /// Whether a redirection is there, for any family.
    pub(crate) fn is_redirected(self) -> Result<bool, ToolError> {
        self.has(nftables::MESH, iptables::INPUT)
    }

    /// Whether `table` is there, or something leads to `chain`.
    fn has(self, table: &str, chain: Chain) -> Result<bool, ToolError> {
        if self == Self::Nftables {
            let tables = run("nft", &["list", "tables"], "")?;
            let wanted = format!("table inet {table}");
            return Ok(tables.lines().any(|line| line.trim() == wanted));
        }
        for family in families() {
            if self.look(family, chain)?.jumps > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn apply(self, redirection: &Redirection) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::mesh(redirection));
        }
        for family in families() {
            for chain in iptables::MESH {
                let rules = iptables::mesh(chain, family, redirection);
                if rules.is_empty() {
                    self.remove_chain(family, chain)?;
                } else {
                    let jumps = self.look(family, chain)?.jumps;
                    self.restore(family, &chain.replace(jumps, &rules))?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn remove(self) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::delete(nftables::MESH));
        }
        for family in families() {
            // The chain that drops goes last.
            for chain in iptables::MESH.into_iter().rev() {
                self.remove_chain(family, chain)?;
            }
        }
        Ok(())
    }

    /// The text that [`Backend::apply`] gives to the programs when nothing is there yet.
    pub(crate) fn print(self, redirection: &Redirection) -> String {
        if self == Self::Nftables {
            return nftables::mesh(redirection);
        }
        let mut text = String::new();
        for family in [Family::V4, Family::V6] {
            text.push_str(&format!("# {}\n", self.program(family, Tool::Restore)));
            for chain in iptables::MESH {
                let rules = iptables::mesh(chain, family, redirection);
                if !rules.is_empty() {
                    text.push_str(&chain.replace(0, &rules));
                }
            }
        }
        text
    }

    /// The text of the default deny.
    pub(crate) fn print_deny(self) -> String {
        if self == Self::Nftables {
            return nftables::deny();
        }
        let mut text = String::new();
        for family in [Family::V4, Family::V6] {
            text.push_str(&format!("# {}\n", self.program(family, Tool::Restore)));
            text.push_str(&iptables::DENY.replace(0, &iptables::deny(family)));
        }
        text
    }

    fn remove_chain(self, family: Family, chain: Chain) -> Result<(), ToolError> {
        match self.look(family, chain)? {
            Found { exists: false, .. } => Ok(()),
            Found { jumps, .. } => self.restore(family, &chain.remove(jumps)),
        }
    }

    fn look(self, family: Family, chain: Chain) -> Result<Found, ToolError> {
        let saved = run(self.program(family, Tool::Save), &["-t", chain.table], "")?;
        let declared = format!(":{} ", chain.name);
        Ok(Found {
            exists: saved.lines().any(|line| line.starts_with(&declared)),
            jumps: saved.lines().filter(|line| *line == chain.jump()).count(),
        })
    }

    fn restore(self, family: Family, text: &str) -> Result<(), ToolError> {
        let program = self.program(family, Tool::Restore);
        run(program, &["--noflush", "--wait", "5"], text).map(drop)
    }

    fn program(self, family: Family, tool: Tool) -> &'static str {
        match (self, family, tool) {
            (Self::Nftables, ..) => "nft",
            (Self::IptablesNft, Family::V4, Tool::Restore) => "iptables-nft-restore",
            (Self::IptablesNft, Family::V4, Tool::Save) => "iptables-nft-save",
            (Self::IptablesNft, Family::V6, Tool::Restore) => "ip6tables-nft-restore",
            (Self::IptablesNft, Family::V6, Tool::Save) => "ip6tables-nft-save",
            (Self::IptablesLegacy, Family::V4, Tool::Restore) => "iptables-legacy-restore",
            (Self::IptablesLegacy, Family::V4, Tool::Save) => "iptables-legacy-save",
            (Self::IptablesLegacy, Family::V6, Tool::Restore) => "ip6tables-legacy-restore",
            (Self::IptablesLegacy, Family::V6, Tool::Save) => "ip6tables-legacy-save",
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Tool {
    Restore,
    Save,
}

/// What is there of a chain of ours.
struct Found {
    exists: bool,
    jumps: usize,
}

fn nft(text: &str) -> Result<(), ToolError> {
    run("nft", &["-f", "-"], text).map(drop)
}

/// Families that the kernel has: IPv6 needs rules even while no address is there, because one may come.
fn families() -> Vec<Family> {
    let mut families = vec![Family::V4];
    if Path::new("/proc/self/net/if_inet6").exists() {
        families.push(Family::V6);
    }
    families
}

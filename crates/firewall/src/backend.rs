//! Which programs speak to the kernel, and what each can do.

use std::{fmt, fs, io, path::Path};

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
        each_family(|family| {
            self.restore(family, &iptables::probe("filter", &iptables::deny(family)))
        })
    }

    /// Whether `redirection` can be made.
    pub(crate) fn probe_mesh(self, redirection: &Redirection) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::probe_mesh(redirection.ipv6));
        }
        let everything = Redirection::everything(redirection.ipv6);
        each_family(|family| {
            iptables::MESH.into_iter().try_for_each(|chain| {
                let rules = iptables::mesh(chain, family, &everything);
                self.restore(family, &iptables::probe(chain.table, &rules))
            })
        })
    }

    /// Whether the rules that are there can be looked at. Makes none, and loads nothing into the kernel.
    pub(crate) fn answers(self) -> bool {
        self.is_denied().is_ok()
    }

    pub(crate) fn deny(self) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::deny());
        }
        each_family(|family| {
            let jumps = self.look(family, iptables::DENY)?.jumps;
            let text = iptables::DENY.replace(jumps, &iptables::deny(family));
            self.restore(family, &text)
        })
    }

    pub(crate) fn open(self) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::delete(nftables::DENY));
        }
        each_family(|family| self.remove_chain(family, iptables::DENY))
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
        let mut found = false;
        each_family(|family| {
            found |= self.look(family, chain)?.jumps > 0;
            Ok(())
        })?;
        Ok(found)
    }

    pub(crate) fn apply(self, redirection: &Redirection) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::mesh(redirection));
        }
        each_family(|family| {
            iptables::MESH.into_iter().try_for_each(|chain| {
                let rules = iptables::mesh(chain, family, redirection);
                if rules.is_empty() {
                    return self.remove_chain(family, chain);
                }
                let jumps = self.look(family, chain)?.jumps;
                self.restore(family, &chain.replace(jumps, &rules))
            })
        })
    }

    pub(crate) fn remove(self) -> Result<(), ToolError> {
        if self == Self::Nftables {
            return nft(&nftables::delete(nftables::MESH));
        }
        each_family(|family| {
            // The chain that drops goes last.
            let mut chains = iptables::MESH.into_iter().rev();
            chains.try_for_each(|chain| self.remove_chain(family, chain))
        })
    }

    /// The text that [`Backend::apply`] gives to the programs when nothing is there yet.
    pub(crate) fn print(self, redirection: &Redirection) -> String {
        if self == Self::Nftables {
            return nftables::mesh(redirection);
        }
        let mut text = String::new();
        for family in Family::ALL {
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
        for family in Family::ALL {
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
        if self == Self::IptablesLegacy && !is_legacy_table_loaded(family, chain.table) {
            return Ok(Found::default());
        }
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
#[derive(Debug, Default)]
struct Found {
    exists: bool,
    jumps: usize,
}

fn nft(text: &str) -> Result<(), ToolError> {
    run("nft", &["-f", "-"], text).map(drop)
}

/// Calls `change` for IPv4 and IPv6: IPv6 needs rules even while no address is there, because one may come. Only a kernel that has no IPv6
/// may refuse them.
fn each_family(mut change: impl FnMut(Family) -> Result<(), ToolError>) -> Result<(), ToolError> {
    Family::ALL
        .into_iter()
        .try_for_each(|family| match change(family) {
            Err(_) if family == Family::V6 && !kernel_has_ipv6() => Ok(()),
            result => result,
        })
}

fn kernel_has_ipv6() -> bool {
    Path::new("/proc/thread-self/net/if_inet6").exists()
}

/// Whether `table` of iptables-legacy is loaded in this network namespace. To look into one with the programs would load it, and its empty
/// chains would then see every packet.
fn is_legacy_table_loaded(family: Family, table: &str) -> bool {
    let names = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(names) {
        Ok(loaded) => loaded.lines().any(|name| name == table),
        // Without the file there are no such tables in the kernel. Else the program says why they cannot be seen.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

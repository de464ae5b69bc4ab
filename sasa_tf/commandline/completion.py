"""Completion of `sasa` in bash, zsh and fish."""

from __future__ import annotations

from collections.abc import Sequence

from sasa_tf.commandline.commands import COMMANDS, find
from sasa_tf.commandline.flag_source import flags_of
from sasa_tf.errors import UserError

# Each shell passes the words before the cursor and the current one, and adds names of files.
_SCRIPTS = {
  "bash": """\
_sasa() {
  local words
  words=$(sasa completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null)
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
  if [[ ${COMPREPLY[*]} == *= ]]; then compopt -o nospace; fi
}
complete -o bashdefault -o default -F _sasa sasa
""",
  "zsh": """\
#compdef sasa
_sasa() {
  local -a candidates
  candidates=(${(f)"$(sasa completion words "${(@)words[2,CURRENT]}" 2> /dev/null)"})
  compadd -S '' -a candidates || _files
}
compdef _sasa sasa
""",
  "fish": """\
complete -c sasa -a '(sasa completion words (commandline -opc)[2..] (commandline -ct) 2> /dev/null)'
""",
}


def script(shell: str) -> str:
  """Returns the script that a shell sources. Raises `UserError` for other shells."""
  if shell not in _SCRIPTS:
    raise UserError(f"sasa completion: the shell is one of {', '.join(_SCRIPTS)}, not {shell!r}.")
  return _SCRIPTS[shell]


def candidates(words: Sequence[str]) -> list[str]:
  """Returns what the last of the words after `sasa` may become: commands, or flags of one.

  Args:
    words: the words of the command line, the last one possibly empty.
  """
  if len(words) <= 1:
    found = [*COMMANDS, "completion"]
  elif words[0] == "completion":
    found = [*_SCRIPTS]
  elif words[0] in COMMANDS:
    found = [f"--{flag.name}=" for flag in flags_of(find(words[0]).source)]
    found += ["--help", "--helpshort"]
  else:
    return []
  return [word for word in found if word.startswith(words[-1] if words else "")]

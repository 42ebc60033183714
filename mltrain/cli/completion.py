"""`mltrain completion`: the script that lets a shell complete our words."""
from __future__ import annotations

from mltrain.cli.arguments import Parser

_BASH = r"""# mltrain: completion for bash. In ~/.bashrc: source <(mltrain completion bash)
_mltrain() {
    local IFS=$'\n'
    COMPREPLY=($("${1/#\~/$HOME}" __complete line "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null))
    if [[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *[=./] ]]; then compopt -o nospace; fi
}
complete -o default -o nosort -F _mltrain mltrain
"""

_ZSH = r"""#compdef mltrain
# mltrain: completion for zsh. In ~/.zshrc: source <(mltrain completion zsh)
_mltrain() {
    local text what
    local -a whole open about_whole about_open
    while IFS=$'\t' read -r text what; do
        if [[ $text == *[=./] ]]; then
            open+=("$text"); about_open+=("${text}${what:+  -- $what}")
        else
            whole+=("$text"); about_whole+=("${text}${what:+  -- $what}")
        fi
    done < <("${words[1]/#\~/$HOME}" __complete words "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)
    (( $#open )) && compadd -S '' -l -d about_open -- "${open[@]}"
    (( $#whole )) && compadd -l -d about_whole -- "${whole[@]}"
    (( $#open + $#whole )) || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -D }
compdef _mltrain mltrain
"""

_FISH = r"""# mltrain: completion for fish. Once: mltrain completion fish > ~/.config/fish/completions/mltrain.fish
function __mltrain_complete
    set -l words (commandline -opc)
    set -l found ($words[1] __complete words $words[2..-1] (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c mltrain -f -a '(__mltrain_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(argv: list[str]) -> int:
    parser = Parser("mltrain completion", "Print the script that completes verbs, flags, recipes, options, keys and runs in your shell.",
                    "  source <(mltrain completion bash)          in ~/.bashrc\n"
                    "  source <(mltrain completion zsh)           in ~/.zshrc\n"
                    "  mltrain completion fish > ~/.config/fish/completions/mltrain.fish")
    parser.add_argument("shell", choices=sorted(SCRIPTS))
    print(SCRIPTS[parser.parse_args(argv).shell], end="")
    return 0

# Completion of hob for bash. Verbs and options come from hob's own help, ids and names from hobd.

_hob_words() {
	# The first words of the indented lines of a help text: verbs, or with "-" the long options.
	if [ "$1" = - ]; then
		grep -oE '^ +(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+'
	else
		sed -nE 's/^  ([a-z]+)  .*/\1/p'
	fi
}

_hob_sandboxes() {
	hob "${HOB_COMPLETE_SOCKET[@]}" ls -q 2>/dev/null
}

_hob_snapshots() {
	hob snapshots ls --columns id 2>/dev/null | grep -oE '^snap-[0-9]+'
}

_hob_environments() {
	hob "${HOB_COMPLETE_SOCKET[@]}" env ls 2>/dev/null | sed -nE '1d; s/^([^ ]+).*/\1/p'
}

_hob_operands() {
	case "$1" in
	create | warm | build) _hob_environments ;;
	exec | info | logs | ps | attach | timeout | sync | pause | resume | rm | snapshot | fork) _hob_sandboxes ;;
	restore) _hob_snapshots ;;
	shell) _hob_sandboxes && _hob_environments ;;
	cp) _hob_sandboxes | sed 's/$/:/' ;;
	builds | env | images | pool) hob "$1" --help 2>/dev/null | _hob_words ;;
	store) printf '%s\n' info create grow mount unmount ;;
	help) hob help 2>/dev/null | _hob_words ;;
	esac
}

_hob() {
	local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD - 1]}"
	local verb="" words i
	local -a topic=() HOB_COMPLETE_SOCKET=()

	for ((i = 1; i < COMP_CWORD; i++)); do
		case "${COMP_WORDS[i]}" in
		--socket) HOB_COMPLETE_SOCKET=(--socket "${COMP_WORDS[++i]}") ;;
		--config) ((i++)) ;;
		-*) ;;
		*)
			verb="${COMP_WORDS[i]}"
			topic=("$verb")
			case "$verb" in
			builds | env | images | pool) ((i + 1 < COMP_CWORD)) && topic+=("${COMP_WORDS[i + 1]}") ;;
			esac
			break
			;;
		esac
	done
	case "$previous" in
	--socket | --config)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--env | -e)
		case "$verb" in
		ls | rm | builds) mapfile -t COMPREPLY < <(compgen -W "$(_hob_environments)" -- "$current") ;;
		esac
		return
		;;
	esac
	if [[ $current == -* ]]; then
		words=$(hob help "${topic[@]}" 2>/dev/null | _hob_words -)
	elif [ -z "$verb" ]; then
		words=$(hob help 2>/dev/null | _hob_words)
	else
		words=$(_hob_operands "$verb")
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
	if [ "$verb" = cp ] || [ "$previous" = check ] || [ "$previous" = pin ]; then
		mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current")
		compopt -o filenames 2>/dev/null
		[[ ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
	fi
}

complete -F _hob hob

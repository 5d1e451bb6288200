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

_hob_images() {
	hob "${HOB_COMPLETE_SOCKET[@]}" images ls 2>/dev/null | grep -oE '^img-[0-9]+'
}

_hob_builds() {
	hob "${HOB_COMPLETE_SOCKET[@]}" builds ls 2>/dev/null | grep -oE '^bld-[0-9]+'
}

# What a verb takes: its parts first, behind one what that part takes.
_hob_operands() {
	case "$*" in
	create | warm | build | 'pool explain' | 'env info' | 'images ls') _hob_environments ;;
	exec | info | logs | events | ps | attach | timeout | sync | pause | resume) _hob_sandboxes ;;
	rm | snapshot | fork) _hob_sandboxes ;;
	restore | 'snapshots info' | 'snapshots rm' | 'snapshots pin' | 'snapshots unpin' | 'snapshots tag' | \
		'snapshots export' | 'snapshots verify' | 'snapshots flatten') _hob_snapshots ;;
	'snapshots diff') _hob_snapshots && _hob_images ;;
	'snapshots cp') _hob_snapshots | sed 's/$/:/' ;;
	shell) _hob_sandboxes && _hob_environments ;;
	cp) _hob_sandboxes | sed 's/$/:/' ;;
	'images info' | 'images diff' | 'images rm') _hob_images ;;
	'images rollback') _hob_environments && _hob_images ;;
	'builds info' | 'builds log' | 'builds cancel') _hob_builds && _hob_environments ;;
	builds | env | images | pool | snapshots) hob help "$1" 2>/dev/null | _hob_words ;;
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
			builds | env | images | pool | snapshots | store)
				((i + 1 < COMP_CWORD)) && topic+=("${COMP_WORDS[i + 1]}")
				;;
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
	--snapshot | --image)
		mapfile -t COMPREPLY < <(compgen -W "$(_hob_"${previous#--}"s)" -- "$current")
		return
		;;
	--env | -e)
		case "$verb" in
		ls | rm | builds | snapshots)
			mapfile -t COMPREPLY < <(compgen -W "$(_hob_environments)" -- "$current")
			;;
		esac
		return
		;;
	esac
	if [[ $current == -* ]]; then
		words=$(hob help "${topic[@]}" 2>/dev/null | _hob_words -)
	elif [ -z "$verb" ]; then
		words=$(hob help 2>/dev/null | _hob_words)
	else
		words=$(_hob_operands "${topic[@]}")
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
	case "${topic[*]}" in
	cp | simulate | 'snapshots cp' | 'snapshots import' | 'env check' | 'env pin' | 'env import')
		mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current")
		compopt -o filenames 2>/dev/null
		[[ ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
		;;
	esac
}

complete -F _hob hob

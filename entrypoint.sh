#!/bin/sh
# `docker run IMAGE check` is `sidecar check`; without a command, or with flags alone, it is `sidecar run`.
set -eu
case ${1-} in
    --help | --version) ;;
    '' | -*) set -- run "$@" ;;
esac
exec sidecar "$@"

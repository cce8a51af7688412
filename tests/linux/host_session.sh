#!/bin/sh
# The first process of the nested host's root: it takes over processes whose parents have ended, and runs the agent.
cd "@CHECKOUT@" || exit
ulimit -n 65536
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1
"@PYTHON@" -P -m tests.linux.inside.agent
echo "host: the agent ended with $?"
while :; do sleep 3600; done

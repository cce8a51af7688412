"""Page serving: page faults of forks answered from their template's memory image.

The supervisor's side, with asyncio: `handle` has `PageServer`, a page server as the supervisor knows it; `program`
starts the process, `hand_over` has what it is handed with a fork, `map_files` makes the files of page maps, and
`putting_back` what somebody has removed of it in the run directory. `earlier` knows page servers of versions before.

The page server's side, standard library only: `page_server` is the process. As it starts it takes what it is handed
(`inheritance`), and gives up all else (`confinement`). A `session` is one fork: `listening` for its VMM, whose
`handshake` brings the userfaultfd, then `serving` it. `pager` answers faults (`fault_around` says with how many pages)
by `installer`, from the `memory_image`, and notes in the `page_map` how each page came. `recorder` notes first touches;
`hot_list` keeps them as `hot_pages` (`merging` several recordings, `hypeman_hot_pages` reads hypeman's), of which
`prefetching` gives forks all but what `sampling` holds back. `population` fills a whole fork; `takeover` goes on where
a dead page server stopped, `remaking` makes the page map that it needs where that is lost, and `vmm_memory` reads what
/proc shows for both. `locks` holds the directories of its files against systemd-tmpfiles.

Both sides: `control` is what they say to each other, `terms` what a session is given, `kernel` the system calls.
"""

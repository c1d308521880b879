"""Measures what `afd-export` made: on this host, and on phones over adb."""

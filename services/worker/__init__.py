"""The transcription worker: cuts recordings into chunks and transcribes them under leases."""

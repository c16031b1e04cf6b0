"""Files that come with the package: demo model and clip, with their licences."""

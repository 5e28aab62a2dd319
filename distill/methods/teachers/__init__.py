"""Methods that change the teacher, or take more than one."""

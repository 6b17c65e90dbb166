import java.io.File

/** As in a script: the folder of the whole build. */
val rootDir = File(".")

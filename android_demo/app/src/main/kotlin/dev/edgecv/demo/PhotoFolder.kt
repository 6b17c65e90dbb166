package dev.edgecv.demo

import android.content.Context
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import dev.edgecv.core.InputError
import dev.edgecv.core.LabelledPhoto
import java.io.IOException

/** A folder of labelled photos that the user chose: its subfolders have the names of the classes. */
object PhotoFolder {
    private const val MOST_PHOTOS = 100_000

    /** The photos in the subfolders, by folder and name; each is decoded when it is read. Throws [InputError]. */
    fun photos(context: Context, tree: Uri): List<LabelledPhoto> = readingFile(context, R.string.folder_failed) {
        val photos = mutableListOf<LabelledPhoto>()
        for (folder in documents(context, tree, DocumentsContract.getTreeDocumentId(tree)).filter { it.type == Document.MIME_TYPE_DIR }) {
            for (file in documents(context, tree, folder.id).filter { it.type.startsWith("image/") }) {
                val uri = DocumentsContract.buildDocumentUriUsingTree(tree, file.id)
                photos += LabelledPhoto(folder.name) { Gallery.decode(context, uri) }
            }
            if (photos.size > MOST_PHOTOS) throw IOException("it must have at most $MOST_PHOTOS photos. Received: more")
        }
        photos
    }

    private class Entry(val id: String, val name: String, val type: String)

    private fun documents(context: Context, tree: Uri, folder: String): List<Entry> {
        val columns = arrayOf(Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME, Document.COLUMN_MIME_TYPE)
        val children = DocumentsContract.buildChildDocumentsUriUsingTree(tree, folder)
        val rows = context.contentResolver.query(children, columns, null, null, null) ?: throw IOException("its files cannot be listed")
        return rows.use {
            val entries = mutableListOf<Entry>()
            while (it.moveToNext()) {
                val id = it.getString(0) ?: continue
                entries += Entry(id, it.getString(1).orEmpty(), it.getString(2).orEmpty())
            }
            entries.sortedBy { entry -> entry.name }
        }
    }
}

;;; rlm-org.el --- Make Org text of what a model writes -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Models write Markdown.  `rlm--org-line' turns one line of it into
;; Org text, given the state that the lines before it left; so a text
;; can be converted while it comes, a line at a time, and each line is
;; looked at once.
;;
;; What a model writes is not trusted to be harmless Org either.  A
;; heading or the end of a drawer would tear the document in which the
;; answer stands, a keyword such as #+include would read files when it
;; is exported, a link may run code.  Whatever the line is, what comes
;; out holds none of these: they are converted or made plain, by a
;; zero width space where nothing better is at hand.

;;; Code:

(require 'cl-lib)
(require 'subr-x)

(cl-defstruct (rlm--org (:constructor rlm--org-make) (:copier rlm--org-copy))
  "What the lines so far left open."
  (fence nil :documentation "Regexp that closes the code block that is open.")
  (block nil :documentation "Name of the Org block that is open: src or example.")
  (quoting nil :documentation "Non-nil inside a quotation."))

(defconst rlm--zwsp (string #x200b)
  "A zero width space, which breaks Org syntax and shows nothing.")

(defconst rlm--org-languages
  '(("bash" . "sh") ("shell" . "sh") ("console" . "sh") ("zsh" . "sh")
    ("py" . "python") ("python3" . "python") ("repl" . "python")
    ("el" . "emacs-lisp") ("elisp" . "emacs-lisp") ("lisp" . "lisp")
    ("js" . "js") ("javascript" . "js") ("c++" . "C++") ("cpp" . "C++")
    ("c" . "C") ("yml" . "yaml") ("text" . nil) ("txt" . nil)
    ("plain" . nil) ("plaintext" . nil) ("markdown" . "markdown"))
  "Org's names of languages where they differ from Markdown's; nil is none.")

;;;; Lines

(defun rlm--org-line (line state)
  "Return LINE of Markdown, without its newline, as Org text.
The result holds no newline at its end; it is nil if the line
leaves nothing.  STATE, an `rlm--org', is brought up to date."
  (let ((line (if (string-suffix-p "\r" line) (string-trim-right line "\r+") line)))
    (cond
     ((rlm--org-fence state) (rlm--org-code-line line state))
     ((rlm--org-open-fence line state))
     ((string-match "\\`[ \t]*>[ ]?" line)
      ;; Others' words, code among them: shown as they stand.
      (let ((inner (rlm--org-harmless (rlm--org-plain (substring line (match-end 0))))))
        (if (rlm--org-quoting state)
            inner
          (setf (rlm--org-quoting state) t)
          (concat "#+begin_quote\n" inner))))
     ((rlm--org-quoting state)
      (setf (rlm--org-quoting state) nil)
      (concat "#+end_quote\n" (rlm--org-text-line line)))
     (t (rlm--org-text-line line)))))

(defun rlm--org-end (state)
  "Return Org text that closes what STATE has open, or nil."
  (cond ((rlm--org-fence state)
         (prog1 (concat "#+end_" (rlm--org-block state))
           (setf (rlm--org-fence state) nil)))
        ((rlm--org-quoting state)
         (setf (rlm--org-quoting state) nil)
         "#+end_quote")))

(defun rlm--org-undecided-p (line state)
  "Return non-nil if LINE, which is not complete, cannot be shown yet.
STATE as in `rlm--org-line'."
  (if (rlm--org-fence state)
      (string-match-p "\\`[ \t]*\\(?:[`~]+\\|#\\+?[a-zA-Z_]*\\)[ \t]*\\'" line)
    (string-match-p
     "\\`[ \t]*\\(?:`\\{1,2\\}\\'\\|```\\|~\\{1,2\\}\\'\\|~~~\\|[*#>|+-]+[ \t]*\\'\\|#\\+\\)"
     line)))

;;;;; Code

(defun rlm--org-open-fence (line state)
  "If LINE opens a code block, note it in STATE and return the Org line."
  (cond
   ((string-match "\\`\\([ \t]*\\)\\(```+\\|~~~+\\)[ \t]*{?\\.?\\([^ \t`{}]*\\)[^`]*\\'" line)
    (let* ((indent (match-string 1 line))
           (fence (match-string 2 line))
           (language (rlm--org-language (match-string 3 line))))
      (rlm--org-begin state indent language
                      (format "\\`[ \t]*%s\\{%d,\\}[ \t]*\\'"
                              (substring fence 0 1) (length fence)))))
   ((let ((case-fold-search t))
      (string-match "\\`\\([ \t]*\\)#\\+begin_\\(src\\|example\\)\\(?:[ \t]+\\([^ \t]+\\)\\)?" line))
    (rlm--org-begin state (match-string 1 line)
                    (rlm--org-language (or (match-string 3 line) ""))
                    (format "\\`[ \t]*#\\+\\(?:end\\|END\\)_%s[ \t]*\\'"
                            (match-string 2 line))))))

(defun rlm--org-begin (state indent language close)
  "Open a block of LANGUAGE in STATE until CLOSE; return its line at INDENT."
  (let ((quoted (rlm--org-quoting state))
        (block (if language "src" "example")))
    (setf (rlm--org-fence state) close
          (rlm--org-block state) block
          (rlm--org-quoting state) nil)
    (concat (and quoted "#+end_quote\n")
            indent "#+begin_" block (and language (concat " " language)))))

(defun rlm--org-language (name)
  "Return Org's name of the language that Markdown calls NAME, or nil."
  (let* ((name (downcase name))
         (known (assoc name rlm--org-languages)))
    (cond (known (cdr known))
          ((string-match-p "\\`[a-z][a-z0-9+_-]*\\'" name) name))))

(defun rlm--org-code-line (line state)
  "Return LINE of the code block open in STATE as Org text."
  (if (string-match-p (rlm--org-fence state) line)
      (progn
        (setf (rlm--org-fence state) nil)
        (concat (and (string-match "\\`[ \t]+" line) (match-string 0 line))
                "#+end_" (rlm--org-block state)))
    (cond
     ;; What Org itself does to such lines when it edits a block.
     ((string-match "\\`[ \t]*\\(,*\\)\\(?:\\*\\|#\\+\\)" line)
      (concat (substring line 0 (match-beginning 1)) ","
              (substring line (match-beginning 1))))
     ;; The block may stand in a drawer, as results do.
     ((string-match "\\`[ \t]*:\\(?:end\\|END\\):[ \t]*\\'" line)
      (concat rlm--zwsp line))
     (t line))))

;;;;; Prose

(defun rlm--org-text-line (line)
  "Return LINE of prose as Org text."
  (cond
   ((string-match "\\`[ \t]\\{0,3\\}#\\{1,6\\}[ \t]+\\(.*?\\)[ \t]*#*[ \t]*\\'" line)
    (rlm--org-heading (match-string 1 line)))
   ((string-match "\\`\\*\\{2,\\}[ \t]+\\([^*].*\\)\\'" line) ; Org's own heading
    (rlm--org-heading (match-string 1 line)))
   ((string-match-p "\\`[ \t]*\\(?:\\(?:\\*[ \t]*\\)\\{3,\\}\\|\\(?:_[ \t]*\\)\\{3,\\}\\|-[ \t]*-[ \t]*-[- \t]*\\)\\'" line)
    "-----")
   ((string-match "\\`\\([ \t]*\\)[*+-]\\([ \t]+\\)" line)
    (concat (match-string 1 line) "-" (match-string 2 line)
            (rlm--org-plain (rlm--org-inline (substring line (match-end 0))))))
   ((string-match-p "\\`[ \t]*|?[ \t]*:?-+:?[ \t]*\\(?:|[ \t]*:?-+:?[ \t]*\\)+|?[ \t]*\\'" line)
    (rlm--org-rule line))
   (t (rlm--org-harmless (rlm--org-inline line)))))

(defun rlm--org-heading (text)
  "Return the heading TEXT as a bold line."
  (let ((text (string-trim (replace-regexp-in-string "[*`]+" "" text))))
    (if (string-empty-p text)
        ""
      (concat "*" (rlm--org-plain text) "*"))))

(defun rlm--org-rule (line)
  "Return the rule of a table in LINE as Org writes it."
  (let ((columns (length (split-string (string-trim line "[ \t|]+" "[ \t|]+") "|"))))
    (concat "|" (mapconcat #'identity (make-list columns "---") "+") "|")))

(defun rlm--org-harmless (line)
  "Return LINE such that Org sees no heading, drawer, keyword or comment in it."
  (cond
   ((string-match "\\`[ \t]*:[^ \t\n:]+:[ \t]*\\'" line)
    (concat "=" (string-trim line) "="))
   ((string-match-p "\\`\\*+\\(?:[ \t]\\|\\'\\)\\|\\`[ \t]*#\\(?:\\+\\|[ \t]\\|\\'\\)\\|\\`%%(" line)
    (let ((at (string-match "[^ \t]" line)))
      (concat (substring line 0 at) rlm--zwsp (substring line at))))
   (t line)))

;;;;; Within a line

(defconst rlm--org-emphasis
  '(("\\*\\*\\*\\([^* \t]\\(?:[^*]*[^* \t]\\)?\\)\\*\\*\\*" "*/" "/*")
    ("\\*\\*\\([^* \t]\\(?:[^*]*[^* \t]\\)?\\)\\*\\*" "*" "*")
    ("__\\([^_ \t]\\(?:[^_]*[^_ \t]\\)?\\)__" "*" "*")
    ("~~\\([^~ \t]\\(?:[^~]*[^~ \t]\\)?\\)~~" "+" "+")
    ("\\*\\([^* \t]\\(?:[^*]*[^* \t]\\)?\\)\\*" "/" "/")
    ("_\\([^_ \t]\\(?:[^_]*[^_ \t]\\)?\\)_" "/" "/"))
  "Markdown's emphasis: regexp whose group 1 is the text, and Org's marks.")

(defconst rlm--org-token
  (concat "\\(?1:`+\\)"
          "\\|!?\\[\\(?2:[^][\n]*\\)\\](\\(?3:[^() \t\n]+\\(?:([^() \t\n]*)[^() \t\n]*\\)?\\)\\(?:[ \t]+\"[^\"\n]*\"\\)?)"
          "\\|\\(?4:[*_~]+\\)")
  "What may begin a piece of markup within a line.")

(defun rlm--org-inline (text)
  "Return TEXT, a part of a line, with its Markdown as Org markup."
  (let ((from 0)                        ; where the plain stretch began
        (position 0)
        (pieces nil)
        match)
    (while (setq match (string-match rlm--org-token text position))
      (let ((token-end (match-end 0))
            (markup (rlm--org-markup text match)))
        (if (null markup)
            (setq position token-end)
          (push (rlm--org-plain (substring text from match)) pieces)
          (push (car markup) pieces)
          (setq from (cdr markup)
                position from))))
    (push (rlm--org-plain (substring text from)) pieces)
    (apply #'concat (nreverse pieces))))

(defun rlm--org-markup (text match)
  "Return (PIECE . END) for the token that was matched in TEXT at MATCH.
PIECE is its Org text, END where in TEXT it ends.  Nil if the
token is no markup."
  (let ((ticks (match-string 1 text))
        (label (match-string 2 text))
        (url (match-string 3 text))
        (end (match-end 0)))
    (cond (ticks (rlm--org-code text match (length ticks)))
          (url (cons (rlm--org-link label url (substring text match end)) end))
          (t (rlm--org-emphasise text match)))))

(defun rlm--org-code (text start count)
  "Return (PIECE . END) for the code in TEXT at START in COUNT backticks.
Nil if the backticks are never closed."
  (let* ((from (+ start count))
         (to (rlm--org-ticks text from count)))
    (unless (or (null to) (= to from))
      (let ((code (rlm--org-trimmed text from to))
            (end (+ to count)))
        (cons (cond ((string-empty-p code) "")
                    ((not (string-search "~" code))
                     (rlm--org-marked text start end "~" code "~"))
                    ((not (string-search "=" code))
                     (rlm--org-marked text start end "=" code "="))
                    (t (rlm--org-plain code)))
              end)))))

(defun rlm--org-trimmed (text from to)
  "Return TEXT from FROM to TO without the white space around it."
  (while (and (< from to) (memq (aref text from) '(?\s ?\t)))
    (setq from (1+ from)))
  (while (and (< from to) (memq (aref text (1- to)) '(?\s ?\t)))
    (setq to (1- to)))
  (substring text from to))

(defun rlm--org-ticks (text from count)
  "Return where in TEXT, at FROM or later, exactly COUNT backticks stand.
Nil if nowhere."
  (let ((found nil))
    (while (and (not found) (setq from (string-match "`+" text from)))
      (if (= count (- (match-end 0) from))
          (setq found from)
        (setq from (match-end 0))))
    found))

(defun rlm--org-emphasise (text start)
  "Return (PIECE . END) for the emphasis in TEXT at START, or nil."
  (let ((rules (unless (and (> start 0)
                            (rlm--org-word-p (aref text (1- start))))
                 rlm--org-emphasis))
        found)
    (while (and rules (not found))
      (pcase-let ((`(,regexp ,open ,close) (pop rules)))
        (when (and (eql start (string-match regexp text start))
                   (let ((end (match-end 0)))
                     (or (= end (length text))
                         (not (rlm--org-word-p (aref text end))))))
          (setq found (list (match-string 1 text) (match-end 0) open close)))))
    (pcase found
      (`(,inner ,end ,open ,close)
       (cons (rlm--org-marked text start end open (rlm--org-inline inner) close)
             end)))))

(defun rlm--org-word-p (char)
  "Return non-nil if CHAR is a letter or digit."
  (memq (get-char-code-property char 'general-category)
        '(Lu Ll Lt Lm Lo Nd Nl No)))

(defun rlm--org-marked (text start end open inner close)
  "Return INNER between OPEN and CLOSE, in the place of TEXT's START to END.
Org wants certain characters around its marks; where there are
others, a zero width space is put between."
  (concat (unless (or (= start 0)
                      (memq (aref text (1- start)) '(?- ?– ?— ?\s ?\t ?\( ?' ?\" ?{)))
            rlm--zwsp)
          open inner close
          (unless (or (= end (length text))
                      (memq (aref text end)
                            '(?- ?– ?— ?\s ?\t ?. ?, ?: ?! ?? ?\; ?' ?\" ?\) ?} ?\\ ?\[)))
            rlm--zwsp)))

(defun rlm--org-link (label url source)
  "Return an Org link to URL named LABEL, or SOURCE made plain.
Only links that show something in a browser, a mail or a relative
file are made: a model's link must not run anything."
  (if (or (string-match-p "\\`\\(?:https?\\|mailto\\):" url)
          (string-match-p "\\`[^:|/~][^:|]*\\'" url))
      (let ((url (if (string-match-p "\\`[a-z]+:" url) url
                   (concat "file:" url)))
            (label (rlm--org-plain (string-trim label))))
        (if (string-match-p "[][]" url)
            (rlm--org-plain source)
          (if (string-empty-p label)
              (format "[[%s]]" url)
            (format "[[%s][%s]]" url label))))
    (rlm--org-plain source)))

(defconst rlm--org-active
  (concat "\\(?1:\\[\\)\\[\\|\\(?1:{{\\){\\|\\(?1:<\\)%%("
          "\\|\\(?1:Local\\) Variables:"
          "\\|\\(?:\\`\\|[^[:alnum:]]\\)"
          "\\(?:\\(?1:src\\)_[^ \t\n[{]+[[{]"
          "\\|\\(?1:call\\)_[^ \t\n[(]+[[(]"
          "\\|\\(?1:elisp\\|shell\\|help\\|rlm\\|file\\+\\(?:sys\\|emacs\\)\\|org-protocol\\):\\)")
  "Regexp for what Org or Emacs may act upon; group 1 is what to part it after.")

(defun rlm--org-plain (text)
  "Return TEXT such that neither Org nor Emacs acts upon a part of it."
  (let ((from 0)
        (pieces nil))
    (while (string-match rlm--org-active text from)
      (push (substring text from (match-end 1)) pieces)
      (push rlm--zwsp pieces)
      (setq from (match-end 1)))
    (if (null pieces)
        text
      (push (substring text from) pieces)
      (apply #'concat (nreverse pieces)))))

(provide 'rlm-org)
;;; rlm-org.el ends here
